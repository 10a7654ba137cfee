package install

import (
	"fmt"
	"path/filepath"
	"strings"
)

// isMultus recognises multus, which hands the pod on to other networks: an entry in its own file would be lost, because
// multus generates it, and would see only what multus returns.
func isMultus(n *network) bool {
	return n.list.entries[0].Type == "multus" || n.list.entries[0].Type == "multus-shim"
}

// delegate finds the network that multus calls for every pod: it names it by file, by directory or by network, or has a copy
// of it inside, which it makes again when the file changes.
func (o Options) delegate(multus *network, others []string) (*network, error) {
	wanted := multus.delegateName()
	for _, name := range others {
		byFile := filepath.Base(wanted) == name
		n, err := o.load(name)
		switch {
		case byFile && err != nil:
			return nil, err
		case byFile && isSingle(name):
			return nil, fmt.Errorf("multus (%s) names %s, which must go on as a list; make it a %s, name that to multus, or choose a file with --conf-file", multus.path, n.path, listExt)
		case err == nil && !isMultus(n) && (byFile || wanted == n.list.name()):
			return n, nil
		}
	}
	return nil, fmt.Errorf("the runtime loads %s, which is multus, and none of the other files in %s is the network that it delegates to (%q); name that with --conf-file",
		multus.path, o.ConfDir, wanted)
}

func (n *network) delegateName() string {
	conf := n.list.keys
	if plugins, isList := conf["plugins"].([]any); isList {
		conf, _ = plugins[0].(map[string]any)
	}
	if name := stringOf(conf["clusterNetwork"]); name != "" {
		return strings.TrimRight(name, "/")
	}
	delegates, _ := conf["delegates"].([]any)
	if len(delegates) == 0 {
		return ""
	}
	first, _ := delegates[0].(map[string]any)
	return stringOf(first["name"])
}
