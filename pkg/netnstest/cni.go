package netnstest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
)

// Conflist installs a network configuration list on the node and returns the
// name of its network. Entries of our type get the node's private directories,
// and the keys of extra (nil: none).
func (n *Node) Conflist(t TB, list []byte, extra map[string]any) string {
	t.Helper()
	var conf map[string]any
	if err := json.Unmarshal(list, &conf); err != nil {
		t.Fatalf("conflist: %v", err)
	}
	plugins, _ := conf["plugins"].([]any)
	for _, p := range plugins {
		if entry, ok := p.(map[string]any); ok && entry["type"] == "ip-masq" {
			entry["stateDir"], entry["dataDir"] = n.StateDir, n.DataDir
			for k, v := range extra {
				entry[k] = v
			}
		}
	}
	name, _ := conf["name"].(string)
	data, err := json.MarshalIndent(conf, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(n.ConfDir, "10-"+name+".conflist"), data, 0o644)
	}
	if err != nil {
		t.Fatalf("conflist: %v", err)
	}
	return name
}

// CNI runs cnitool on the node: verb is add, check, del, gc or status (the last
// two need a namespace as well, any will do). env may add CNI_IFNAME, CAP_ARGS
// and CNI_ARGS. Plugins come from bin/ and bin/tools/. A plugin's error is a
// Result; it ends the test only when cnitool could not run.
func (n *Node) CNI(t TB, verb, network, netns string, env ...string) Result {
	t.Helper()
	root, err := RepoRoot()
	if err != nil {
		t.Fatalf("%v", err)
	}
	bin := filepath.Join(root, "bin")
	ctx, cancel := context.WithTimeout(context.Background(), Limit(timeout))
	defer cancel()
	r, err := n.Exec(ctx, Cmd{
		Args: []string{"cnitool", verb, network, netns},
		Env: append([]string{
			"NETCONFPATH=" + n.ConfDir,
			"CNI_PATH=" + strings.Join([]string{bin, filepath.Join(bin, "tools")}, ":"),
		}, env...),
	})
	if err != nil {
		t.Fatalf("cnitool %s %s: %v\n%s", verb, network, err, r.Stderr)
	}
	return r
}
