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
	listed     bool  // the plugin is in it
	masquerade *bool // the key of the plugin's entry
}

// pluginType is the plugin's type in a conflist.
const pluginType = "ip-masq"

// networks reads the conflists, the single-plugin form and those that multus has inside included. Files that cannot be read name no
// network, and the first of a name counts, as for the runtime.
func (c Cache) networks() map[string]network {
	found := map[string]network{}
	for _, data := range c.conflists() {
		for _, list := range append([]json.RawMessage{data}, delegates(data)...) {
			if n, ok := parseNetwork(list); ok && found[n.name].name == "" {
				found[n.name] = n
			}
		}
	}
	return found
}

// conflists are the texts of the files that a runtime would look at, in its order.
func (c Cache) conflists() (texts [][]byte) {
	files, _ := os.ReadDir(c.ConfDir)
	for _, file := range files {
		if !slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(file.Name())) {
			continue
		}
		if data, err := os.ReadFile(filepath.Join(c.ConfDir, file.Name())); err == nil {
			texts = append(texts, data)
		}
	}
	return texts
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
			n.listed, n.masquerade = true, plugin.Masquerade
		}
	}
	return n, true
}
