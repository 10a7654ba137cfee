package cnicache

import (
	"encoding/json"
	"path/filepath"
	"slices"
)

// multus is what matters here of its configuration. It calls the plugins of a network by libcni itself, from a list that it names
// or has inside, and keeps their results in a cache of its own.
type multus struct {
	Type      string            `json:"type"`
	CNIDir    string            `json:"cniDir"`
	Delegates []json.RawMessage `json:"delegates"`
}

// multusDir is that cache below the runtime's, where its configuration has no cniDir (multus 4.2, pkg/types/conf.go, defaultCNIDir).
const multusDir = "multus"

// parseMultus returns the configurations of multus in a file: it may be a single plugin, or one of a list.
func parseMultus(data []byte) (found []multus) {
	var list struct {
		multus
		Plugins []multus `json:"plugins"`
	}
	_ = json.Unmarshal(data, &list) // what is no such document names no multus
	for _, conf := range append([]multus{list.multus}, list.Plugins...) {
		if conf.Type == "multus" || conf.Type == "multus-shim" {
			found = append(found, conf)
		}
	}
	return found
}

// delegates are the networks that multus has inside.
func delegates(data []byte) (lists []json.RawMessage) {
	for _, conf := range parseMultus(data) {
		lists = append(lists, conf.Delegates...)
	}
	return lists
}

// Dirs are the directories that hold results: the runtime's first, and those of multus, to which the node's lists lead. They need
// not be there.
func (c Cache) Dirs() []string {
	dirs := []string{c.resultsDir(), filepath.Join(c.Dir, multusDir, "results")}
	for _, data := range c.conflists() {
		for _, conf := range parseMultus(data) {
			dir := filepath.Join(conf.CNIDir, "results")
			if filepath.IsAbs(dir) && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}
