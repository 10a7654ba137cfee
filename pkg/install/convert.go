package install

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// convertedKey marks a list that was made of the configuration of a single plugin, and names the file it was. Runtimes
// ignore keys they do not know.
const convertedKey = "ip-masq-installer/converted-from"

const listExt = ".conflist"

// between stands between the former file's text and our entry, end behind it.
const (
	between = ",\n    "
	end     = "\n  ]\n}\n"
)

// converted is the list that a runtime makes of a single plugin's configuration (libcni, ConfListFromConf), with our entry
// behind it. The former text stands in it byte for byte, so that reverted can give it back without anything kept elsewhere.
func converted(file string, raw, entry []byte) ([]byte, error) {
	head, err := convertedHead(file, raw)
	if err != nil {
		return nil, err
	}
	if entry == nil {
		entry = []byte(defaultEntry)
	}
	return slices.Concat(head, raw, []byte(between), entry, []byte(end)), nil
}

func convertedHead(file string, raw []byte) ([]byte, error) {
	var conf map[string]any
	if err := json.Unmarshal(raw, &conf); err != nil {
		return nil, err
	}
	head := []byte("{\n")
	for _, member := range [][2]any{{"cniVersion", conf["cniVersion"]}, {"name", conf["name"]}, {convertedKey, file}} {
		value, err := json.Marshal(member[1])
		if err != nil {
			return nil, err
		}
		head = fmt.Appendf(head, "  %q: %s,\n", member[0], value)
	}
	return append(head, "  \"plugins\": [\n"...), nil
}

// reverted gives back the text that a list was converted from and the file's name. Where somebody else worked on the list
// since, it stays a list.
func reverted(list string, raw []byte) (file string, conf []byte, ok bool) {
	l, err := scan(raw)
	if err != nil || len(l.entries) != 2 || l.entries[1].Type != pluginType {
		return "", nil, false
	}
	file = stringOf(l.keys[convertedKey])
	if !isSingle(file) || listName(file) != list {
		return "", nil, false
	}
	head, err := convertedHead(file, l.text(0))
	conf, isOurs := bytes.CutPrefix(raw, head)
	if err != nil || !isOurs {
		return "", nil, false
	}
	conf, isOurs = bytes.CutSuffix(conf, slices.Concat([]byte(between), l.text(1), []byte(end)))
	return file, conf, isOurs
}

// isSingle says whether a runtime takes the file for the configuration of a single plugin, not for a list.
func isSingle(file string) bool {
	ext := filepath.Ext(file)
	return ext == ".conf" || ext == ".json"
}

// listName is the name under which a file goes on as a list.
func listName(file string) string { return strings.TrimSuffix(file, filepath.Ext(file)) + listExt }
