// Package kubectl tests conf/kubectl-ip_masq with answers of agents that were written down, and a kubectl that gives them.
package kubectl

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cluster is one whose nodes answer with files of testdata, by node; a node without one does not answer.
type cluster map[string]string

// kubectl writes a program that lists the cluster's pods and answers for them. It refuses what it is not meant to be asked.
func (c cluster) kubectl(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	var items []string
	answers := ""
	data, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for node, file := range c {
		items = append(items, fmt.Sprintf(`{"metadata":{"name":"pod-%s"},"spec":{"nodeName":%q}}`, node, node))
		answer := fmt.Sprintf("cat %s/%s.json", data, file)
		if file == "" {
			answer = "echo 'error: container not found' >&2; exit 1"
		}
		answers += fmt.Sprintf("*' exec '*'--container=ip-masq-agent pod-%s -- /ip-masq-agent status --host-root=/host --output=json') %s ;;\n", node, answer)
	}
	script := "#!/bin/sh\necho \"$*\" >> " + dir + "/calls\ncase \" $*\" in\n" +
		"*' get pods --namespace='*' --selector=k8s-app=ip-masq-agent --output=json') echo '{\"items\":[" + strings.Join(items, ",") + "]}' ;;\n" +
		answers + "*) echo \"not expected: $*\" >&2; exit 9 ;;\nesac\n"
	if err := os.WriteFile(filepath.Join(dir, "kubectl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run starts the plugin as kubectl does.
func (c cluster) run(t *testing.T, args ...string) (stdout, stderr string, code int, calls string) {
	t.Helper()
	if _, err := exec.LookPath("jq"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := c.kubectl(t)
	plugin := filepath.Join("..", "..", "..", "conf", "kubectl-ip_masq")
	cmd := exec.Command(plugin, args...)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	made, _ := os.ReadFile(filepath.Join(dir, "calls"))
	return out.String(), errs.String(), cmd.ProcessState.ExitCode(), string(made)
}

// TestTable reads as what a person sees.
func TestTable(t *testing.T) {
	stdout, stderr, code, _ := cluster{"node-a": "same", "b": "troubled", "c": "unknown", "d": "bad", "e": "", "f": "nodaemon"}.run(t, "status")
	want := `NODE     VERSION     CONFIG         BACKEND    UNCOVERED   DRIFT   CONFLICTS
b        v0.1.0      9f86d081884c   nftables   1           2       0
c        v0.1.0      -              ?          ?           ?       0
d        v0.1.0      bad            nftables   0           0       0
e        no answer   ?              ?          ?           ?       ?
f        no daemon   -              nftables   0           0       0
node-a   v0.1.0      9f86d081884c   nftables   0           0       0
`
	if diff := cmp.Diff(want, stdout); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if code != 1 || !strings.Contains(stderr, "e (pod-e) does not answer: error: container not found") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// TestDiffer: which clusters are one, and what is named that differs.
func TestDiffer(t *testing.T) {
	for name, c := range map[string]struct {
		nodes cluster
		words string // on stderr; empty: exit 0
	}{
		"one node":            {cluster{"a": "same"}, ""},
		"the same":            {cluster{"a": "same", "b": "same", "c": "same"}, ""},
		"the same conflict":   {cluster{"a": "conflict", "b": "conflict"}, ""},
		"many":                {many(40), ""},
		"another version":     {cluster{"a": "same", "b": "older"}, "different versions"},
		"another config":      {cluster{"a": "same", "b": "config"}, "different configurations"},
		"a bad config":        {cluster{"a": "same", "b": "bad"}, "different configurations"},
		"another backend":     {cluster{"a": "same", "b": "backend"}, "different backends"},
		"uncovered and drift": {cluster{"a": "same", "b": "troubled"}, "different uncovered pods"},
		"a conflict on one":   {cluster{"a": "same", "b": "conflict"}, "different conflicts"},
		"none answers":        {cluster{"a": ""}, "does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code, _ := c.nodes.run(t, "status")
			want := 0
			if c.words != "" {
				want = 1
			}
			if code != want || !strings.Contains(stderr, c.words) || c.words == "" && stderr != "" {
				t.Errorf("exit %d, want %d with %q\n%s%s", code, want, c.words, stdout, stderr)
			}
			if lines := strings.Count(stdout, "\n"); lines != len(c.nodes)+1 {
				t.Errorf("%d lines for %d nodes", lines, len(c.nodes))
			}
		})
	}
}

func many(n int) cluster {
	c := cluster{}
	for i := range n {
		c[fmt.Sprintf("node-%03d", i)] = "same"
	}
	return c
}

// TestFlags: kubectl's own are passed on, and mistakes end with 2 and a sentence.
func TestFlags(t *testing.T) {
	_, stderr, code, calls := cluster{"a": "same"}.run(t, "status", "-n", "net", "--context", "c", "--kubeconfig=/k", "--request-timeout", "5s")
	if code != 0 || strings.Count(calls, "--context=c --kubeconfig=/k --request-timeout=5s ") != 2 || strings.Count(calls, "--namespace=net ") != 2 {
		t.Errorf("exit %d: %s\n%s", code, stderr, calls)
	}
	for _, args := range [][]string{{}, {"states"}, {"status", "more"}, {"status", "--all"}, {"status", "-n"}, {"status", "--context"}} {
		if stdout, stderr, code, _ := (cluster{"a": "same"}).run(t, args...); code != 2 || stderr == "" || stdout != "" {
			t.Errorf("%q: exit %d, %q, %q", args, code, stdout, stderr)
		}
	}
	if _, stderr, code, _ := (cluster{}).run(t, "status"); code != 2 || !strings.Contains(stderr, "no pod of ip-masq-agent") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if stdout, _, code, _ := (cluster{}).run(t, "--help"); code != 0 || !strings.Contains(stdout, "usage: kubectl ip-masq status") {
		t.Errorf("exit %d: %s", code, stdout)
	}
}
