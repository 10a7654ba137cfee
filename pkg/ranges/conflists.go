package ranges

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/config"
)

// inConflists reads the address ranges that plugins hand out, in the files that a runtime would load.
func inConflists(dir string) ([]config.Range, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the conflists: %w", err)
	}
	var found []config.Range
	for _, file := range files {
		if !slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(file.Name())) {
			continue
		}
		path := filepath.Join(dir, file.Name())
		data, readErr := os.ReadFile(path)
		if readErr != nil {
			err = errors.Join(err, readErr)
			continue
		}
		var value any
		if decodeErr := json.Unmarshal(data, &value); decodeErr != nil {
			err = errors.Join(err, fmt.Errorf("conflist %s: %w", path, decodeErr))
			continue
		}
		for _, prefix := range podRanges(value) {
			found = append(found, config.Range{Prefix: prefix, Name: "pod range of " + path})
		}
	}
	return found, err
}

// rangeKeys are those under which IPAM plugins have their ranges: host-local ("subnet", "ranges"), flannel ("Network" of a
// delegate), kube-ovn and whereabouts ("cidr", "range"), Calico ("ipv4_pools", "ipv6_pools").
var rangeKeys = []string{"subnet", "cidr", "range", "Network", "ipv4_pools", "ipv6_pools"}

// podRanges finds prefixes under those keys, at any depth: lists nest plugins, delegates and their IPAM in many ways.
func podRanges(value any) []netip.Prefix {
	var found []netip.Prefix
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			found = append(found, podRanges(item)...)
		}
	case map[string]any:
		for key, inner := range v {
			if slices.Contains(rangeKeys, key) {
				found = append(found, prefixesIn(inner)...)
			}
			found = append(found, podRanges(inner)...)
		}
	}
	slices.SortFunc(found, netip.Prefix.Compare)
	return slices.Compact(found)
}

// prefixesIn reads a prefix or a list of them. What is none, such as the name of a pool, is no range that could be compared.
func prefixesIn(value any) []netip.Prefix {
	items, isList := value.([]any)
	if !isList {
		items = []any{value}
	}
	var found []netip.Prefix
	for _, item := range items {
		text, _ := item.(string)
		if prefix, err := netip.ParsePrefix(text); err == nil {
			found = append(found, prefix.Masked())
		}
	}
	return found
}
