package cnicache

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
)

// network is what a conflist says of the plugin.
type network struct {
	name       string
	masquerade bool // the plugin is in it and not switched off
	optedOut   bool // the plugin is in it and switched off
}

// pluginType is the plugin's type in a conflist.
const pluginType = "ip-masq"

// networks reads the conflists, the single-plugin form included. Files that cannot be read name no network.
func (c Cache) networks() map[string]network {
	found := map[string]network{}
	files, err := os.ReadDir(c.ConfDir)
	if err != nil {
		return found
	}
	for _, file := range files {
		if !slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(file.Name())) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(c.ConfDir, file.Name()))
		if err != nil {
			continue
		}
		// The first file of a name counts, as for the runtime.
		if n, ok := parseNetwork(data); ok && found[n.name].name == "" {
			found[n.name] = n
		}
	}
	return found
}

func parseNetwork(data []byte) (network, bool) {
	var list struct {
		Name    string `json:"name"`
		Plugins []struct {
			Type       string `json:"type"`
			Masquerade *bool  `json:"masquerade"`
		} `json:"plugins"`
	}
	if json.Unmarshal(data, &list) != nil || list.Name == "" {
		return network{}, false
	}
	n := network{name: list.Name}
	for _, plugin := range list.Plugins {
		if plugin.Type == pluginType {
			n.optedOut = plugin.Masquerade != nil && !*plugin.Masquerade
			n.masquerade = !n.optedOut
		}
	}
	return n, true
}
