package install

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/paths"
)

// isMultus recognises multus, which hands the pod on to other networks: an entry in its own list would see only what multus
// returns, and multus makes its file again whenever it starts.
func isMultus(n *network) bool {
	return n.list != nil && len(n.list.entries) > 0 && (n.list.entries[0].Type == "multus" || n.list.entries[0].Type == "multus-shim")
}

// delegate finds the network that multus calls for every pod: it names it by file, by directory or by network, or has a copy
// of it inside.
func (o Options) delegate(multus *network, others []string) (*network, error) {
	wanted := multus.delegateName()
	if path := o.elsewhere(wanted); path != "" {
		n, err := o.load(path)
		if err == nil && isSingle(path) {
			return nil, fmt.Errorf("%s names %s by its path, so it must keep its name, under which there is no room for a second plugin; make it a list (%s), name that there, and install again; or let the agent work without the plugin (--sources=all)",
				multus.path, path, listName(n.name()))
		}
		return n, err
	}
	for _, name := range others {
		byFile := filepath.Base(wanted) == name
		n, err := o.load(filepath.Join(o.ConfDir, name))
		switch {
		case byFile && err != nil:
			return nil, err
		case err == nil && !isMultus(n) && (byFile || wanted == stringOf(n.list.keys["name"])):
			return n, nil
		}
	}
	if filepath.IsAbs(wanted) {
		return nil, fmt.Errorf("the runtime loads %s, which is multus, and the network that it delegates to is %s, which is not to be seen from here; run the installer where it is (in a pod: mount its directory under the same path), or let the agent work without the plugin (--sources=all)",
			multus.path, wanted)
	}
	return nil, fmt.Errorf("the runtime loads %s, which is multus, and none of the other files in %s is the network that it delegates to (%q); name that with --conf-file",
		multus.path, o.ConfDir, wanted)
}

// elsewhere is the file that a path of multus means, empty where that is in the conf directory or cannot be found. Multus runs in a
// container, where the node's root or parts of it are mounted below another directory.
func (o Options) elsewhere(wanted string) string {
	if !filepath.IsAbs(wanted) {
		return ""
	}
	for path := filepath.Clean(wanted); ; {
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() {
			if filepath.Dir(path) == o.ConfDir {
				return ""
			}
			return path
		}
		_, rest, more := strings.Cut(path[1:], "/")
		if !more {
			return ""
		}
		path = "/" + rest
	}
}

// delegateElsewhere is the list in another directory that a file of the conf directory names as multus's delegate.
func (o Options) delegateElsewhere(name string) string {
	n, err := readNetwork(filepath.Join(o.ConfDir, name))
	if err != nil || n.understand() != nil || !isMultus(n) {
		return ""
	}
	return o.elsewhere(n.delegateName())
}

// multusConf is the configuration of multus itself, which may be the first plugin of a list.
func (n *network) multusConf() map[string]any {
	if plugins, isList := n.list.keys["plugins"].([]any); isList {
		conf, _ := plugins[0].(map[string]any)
		return conf
	}
	return n.list.keys
}

func (n *network) delegateName() string {
	conf := n.multusConf()
	if name := stringOf(conf["clusterNetwork"]); name != "" {
		return strings.TrimRight(name, "/")
	}
	return stringOf(firstDelegate(conf)["name"])
}

func firstDelegate(conf map[string]any) map[string]any {
	delegates, _ := conf["delegates"].([]any)
	if len(delegates) == 0 {
		return nil
	}
	first, _ := delegates[0].(map[string]any)
	return first
}

// hasCopyOf says whether multus has a copy of the list inside. Thin multus makes it once, when it starts, and calls what is in it.
func (n *network) hasCopyOf(list *network) bool {
	conf := n.multusConf()
	first := firstDelegate(conf)
	if stringOf(conf["clusterNetwork"]) != "" || stringOf(first["name"]) != stringOf(list.list.keys["name"]) {
		return false
	}
	return first["plugins"] != nil || first["type"] != nil
}

// copied is the list that multus has inside, as a network of its own that can be judged and not written.
func (n *network) copied() (*network, error) {
	start, end, err := copySpan(n.raw)
	if err != nil {
		return nil, err
	}
	inside := &network{path: n.path, real: n.real, info: n.info, raw: n.raw[start:end]}
	if inside.list, err = scan(inside.raw); err != nil {
		return nil, err
	}
	if len(inside.list.entries) == 0 {
		inside.list.entries = []entry{{end: len(inside.raw), pluginConf: decodePlugin(inside.list.keys)}}
	}
	return inside, inside.list.check()
}

// insertIntoCopy is Insert for the copy. A list's entry, which is given, makes the copy the same; file is the list's.
func insertIntoCopy(raw []byte, file string, entry []byte) ([]byte, error) {
	start, end, err := copySpan(raw)
	if err != nil {
		return nil, err
	}
	text := raw[start:end]
	l, err := scan(text)
	if err != nil {
		return nil, err
	}
	var after []byte
	if len(l.entries) == 0 { // the copy of a single plugin's configuration
		after, err = converted(singleName(file), text, entry)
		after = bytes.TrimSuffix(after, []byte("\n"))
	} else {
		after, err = Insert(text, entry)
	}
	return splice(raw, start, end, after), err
}

// singleName is a name that reverted takes for that of a single plugin's configuration.
func singleName(file string) string {
	return strings.TrimSuffix(file, filepath.Ext(file)) + ".conf"
}

// removeFromCopy takes the entry out of the copy that multus has.
func removeFromCopy(raw []byte) ([]byte, error) {
	start, end, err := copySpan(raw)
	if err != nil {
		return nil, err
	}
	text := raw[start:end]
	l, err := scan(text)
	if err != nil {
		return nil, err
	}
	file := stringOf(l.keys[convertedKey])
	if _, conf, ok := reverted(listName(file), append(bytes.Clone(text), '\n')); ok {
		return splice(raw, start, end, conf), nil
	}
	after, err := Remove(text)
	return splice(raw, start, end, after), err
}

// copySpan finds where the first delegate stands in the text of multus's configuration.
func copySpan(raw []byte) (start, end int, err error) {
	l, err := scan(raw)
	if err != nil {
		return 0, 0, err
	}
	if len(l.entries) > 0 {
		start = l.entries[0].start
		if l, err = scan(l.text(0)); err != nil {
			return 0, 0, err
		}
	}
	at, err := l.find("delegates")
	if err != nil || at < 0 {
		return 0, 0, fmt.Errorf("it has no delegates: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(l.raw[at:]))
	if _, err := decoder.Token(); err != nil {
		return 0, 0, err
	}
	var first json.RawMessage
	if err := decoder.Decode(&first); err != nil {
		return 0, 0, err
	}
	end = start + at + int(decoder.InputOffset())
	return end - len(first), end, nil
}

// runtimeDirs are where runtimes load networks from, beside --cni-conf-dir: multus's own configuration may lie there, and name a
// file in the directory that the installer was given.
var runtimeDirs = []string{paths.CNIConfDir, "/etc/kubernetes/cni/net.d"}

func (o Options) dirsOfRuntimes() []string {
	if o.otherConfDirs != nil {
		return append([]string{o.ConfDir}, o.otherConfDirs...)
	}
	return append([]string{o.ConfDir}, runtimeDirs...)
}

// namedBy is the configuration that names a file by its path, empty for none. A container may see the path below another directory.
func (o Options) namedBy(path string) string {
	for _, dir := range o.dirsOfRuntimes() {
		names, _ := candidates(dir)
		for _, name := range names {
			raw, err := os.ReadFile(filepath.Join(dir, name))
			var document any
			if err == nil && json.Unmarshal(raw, &document) == nil && namesPath(document, path) {
				return filepath.Join(dir, name)
			}
		}
	}
	return ""
}

func namesPath(value any, path string) bool {
	switch value := value.(type) {
	case string:
		return filepath.IsAbs(value) && filepath.Base(value) == filepath.Base(path) &&
			(strings.HasSuffix(value, path) || strings.HasSuffix(path, value) || filepath.Base(filepath.Dir(value)) == filepath.Base(filepath.Dir(path)))
	case map[string]any:
		for _, member := range value {
			if namesPath(member, path) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(value, func(item any) bool { return namesPath(item, path) })
	}
	return false
}
