package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// pluginType is the plugin's type in a conflist, and the binary's name: the runtime looks for the one by the other.
const pluginType = "ip-masq"

// conflist is a network as libcni sees it, and where in its text the entries stand. The text itself is never written from
// the decoded form: that would lose 64-bit integers, key order, escapes and keys that only others know.
type conflist struct {
	raw     []byte
	keys    map[string]any
	entries []entry
}

// entry is one plugin of a conflist: raw[start:end].
type entry struct {
	start, end int
	pluginConf
}

// pluginConf is what matters here of a plugin's configuration.
type pluginConf struct {
	Type     string          `json:"type"`
	Name     string          `json:"name"`
	Mode     string          `json:"mode"` // of ipvlan
	Bridge   string          `json:"bridge"`
	Subnets  string          `json:"subnetFile"` // of flannel
	IPMasq   json.RawMessage `json:"ipMasq"`
	Delegate json.RawMessage `json:"delegate"`
}

// scan finds the entries of any JSON document; one without a list of plugins has none.
func scan(raw []byte) (*conflist, error) {
	l := &conflist{raw: raw}
	if err := json.Unmarshal(raw, &l.keys); err != nil {
		return nil, err
	}
	plugins, isList := l.keys["plugins"].([]any)
	if !isList {
		return l, nil
	}
	start, err := l.find("plugins")
	if err != nil {
		return nil, err
	}
	l.entries, err = entries(raw, start, plugins)
	return l, err
}

// find returns where the value of a key of the document begins: of the last one, where the key is repeated, as for libcni.
func (l *conflist) find(key string) (int, error) {
	decoder := json.NewDecoder(bytes.NewReader(l.raw))
	found := -1
	if _, err := decoder.Token(); err != nil {
		return 0, err
	}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return 0, err
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return 0, err
		}
		if token == key {
			found = int(decoder.InputOffset()) - len(value)
		}
	}
	return found, nil
}

func entries(raw []byte, start int, plugins []any) ([]entry, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw[start:]))
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	var all []entry
	for _, plugin := range plugins {
		var text json.RawMessage
		if err := decoder.Decode(&text); err != nil {
			return nil, err
		}
		end := start + int(decoder.InputOffset())
		all = append(all, entry{start: end - len(text), end: end, pluginConf: decodePlugin(plugin)})
	}
	return all, nil
}

// decodePlugin goes the way of libcni, through a map: of keys that differ in their letter case only, the same one wins.
func decodePlugin(plugin any) pluginConf {
	var conf pluginConf
	if text, err := json.Marshal(plugin); err == nil {
		_ = json.Unmarshal(text, &conf)
	}
	return conf
}

// check says why libcni would not load the list.
func (l *conflist) check() error {
	if name, _ := l.keys["name"].(string); name == "" {
		return errors.New(`it has no "name"`)
	}
	if _, isText := l.keys["cniVersion"].(string); l.keys["cniVersion"] != nil && !isText {
		return errors.New(`its "cniVersion" is not a string`)
	}
	if len(l.entries) == 0 {
		return errors.New(`it has no list of "plugins"`)
	}
	for i, e := range l.entries {
		if e.Type == "" {
			return fmt.Errorf(`number %d of its "plugins" has no "type"`, i+1)
		}
	}
	return nil
}

func (l *conflist) text(i int) []byte { return l.raw[l.entries[i].start:l.entries[i].end] }

// own are the numbers of ip-masq's entries.
func (l *conflist) own() []int {
	var found []int
	for i, e := range l.entries {
		if e.Type == pluginType {
			found = append(found, i)
		}
	}
	return found
}

// stringOf is a value that should be a string, and empty where it is none.
func stringOf(value any) string {
	text, _ := value.(string)
	return text
}

// namesPlugin says whether a configuration would have a runtime, or another plugin, call ip-masq: at whatever depth, since multus
// and its like carry whole lists inside.
func namesPlugin(raw []byte) bool {
	var document any
	return json.Unmarshal(raw, &document) == nil && mentions(document)
}

func mentions(value any) bool {
	switch value := value.(type) {
	case map[string]any:
		if value["type"] == pluginType {
			return true
		}
		for _, member := range value {
			if mentions(member) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(value, mentions)
	}
	return false
}
