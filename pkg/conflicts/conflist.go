package conflicts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// pluginType is the plugin ip-masq in a conflist.
const pluginType = "ip-masq"

// conflists reads the network configurations of a directory. A file that is no JSON is an error and not the end: runtimes and
// installers rewrite theirs in place.
func conflists(dir string) ([]Conflict, error) {
	if dir == "" {
		return nil, nil
	}
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the conflists: %w", err)
	}
	var found []Conflict
	var errs []error
	for _, file := range files {
		if !slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(file.Name())) {
			continue
		}
		path := filepath.Join(dir, file.Name())
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted while we read the directory
		}
		if err == nil {
			var in []Conflict
			in, err = conflist(path, data)
			found = append(found, in...)
		}
		errs = append(errs, err)
	}
	return found, errors.Join(errs...)
}

// plugin is an entry of a conflist, with as many keys as its author liked.
type plugin map[string]json.RawMessage

// conflist finds the plugins that masquerade beside ip-masq.
func conflist(path string, data []byte) ([]Conflict, error) {
	var list struct {
		Plugins []plugin `json:"plugins"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("conflist %s: %w", path, err)
	}
	if !slices.ContainsFunc(list.Plugins, plugin.governs) {
		return nil, nil
	}
	var found []Conflict
	for i, p := range list.Plugins {
		where := fmt.Sprintf("%s plugins[%d]", path, i)
		found = append(found, p.conflicts(where, p.text("type"))...)
		var delegate plugin
		if json.Unmarshal(p["delegate"], &delegate) == nil {
			found = append(found, delegate.conflicts(where+".delegate", p.text("type"))...)
		}
	}
	return found, nil
}

// governs reports whether the entry puts the network's pods behind the policy.
func (p plugin) governs() bool {
	return p.text("type") == pluginType && string(p["masquerade"]) != "false"
}

// masqueradeKeys are the keys by which a main plugin is told to masquerade.
var masqueradeKeys = []string{"ipMasq", "masq"}

func (p plugin) conflicts(where, kind string) []Conflict {
	var found []Conflict
	for _, key := range masqueradeKeys {
		if !p.on(key) || kind == pluginType {
			continue
		}
		found = append(found, Conflict{
			Owner: fmt.Sprintf("CNI plugin %s (%s)", kind, key), Where: where,
			Rule: fmt.Sprintf("%q: %s", key, p[key]),
			Fix:  fmt.Sprintf("Set %q to false there; pods attached before keep their rule until they are recreated.", key),
		})
	}
	return found
}

func (p plugin) text(key string) string {
	var text string
	_ = json.Unmarshal(p[key], &text)
	return text
}

// on reads true, also where somebody quoted it.
func (p plugin) on(key string) bool {
	return slices.Contains([]string{`true`, `"true"`}, string(p[key]))
}
