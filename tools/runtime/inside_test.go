package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// inside is how libcni runs plugins: on the node, while the library stays here.
type inside struct {
	invoke.RawExec
	version.PluginDecoder
	node  *netnstest.Node
	calls calls
}

func (e *inside) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	if filepath.Base(path) == "ip-masq" {
		e.calls.add(verbOf(env, stdin))
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	r, err := e.node.Exec(ctx, netnstest.Cmd{Args: []string{path}, Env: env, Stdin: string(stdin)})
	if err != nil || r.Code == 0 {
		return []byte(r.Stdout), err
	}
	problem := &types.Error{}
	if err := json.Unmarshal([]byte(r.Stdout), problem); err != nil {
		return nil, fmt.Errorf("%s: exit %d: %s%s", path, r.Code, r.Stdout, r.Stderr)
	}
	return nil, problem
}

// verbOf tells the two kinds of GC apart.
func verbOf(env []string, stdin []byte) string {
	verb := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "CNI_COMMAND="); ok {
			verb = v
		}
	}
	if verb != "GC" {
		return verb
	}
	var keys map[string]json.RawMessage
	_ = json.Unmarshal(stdin, &keys)
	if string(keys["cni.dev/valid-attachments"]) == "null" {
		return "GC null"
	}
	return "GC list"
}

// calls are those that were made of our plugin.
type calls struct {
	mu   sync.Mutex
	list []string
}

func (c *calls) add(verb string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, verb)
}

// wantCalls keeps the replay honest: the library leaves verbs out that the network's version does not have.
func (e *inside) wantCalls(t *testing.T) {
	t.Helper()
	want := []string{"VERSION", "STATUS", "GC null", "ADD", "CHECK", "ADD", "CHECK", "DEL", "GC list", "DEL"}
	if got := oneVersion(e.calls.list); !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}

// oneVersion leaves one VERSION: the library asks as often as it likes.
func oneVersion(verbs []string) (out []string) {
	for _, verb := range verbs {
		if verb != "VERSION" || !slices.Contains(out, verb) {
			out = append(out, verb)
		}
	}
	return out
}
