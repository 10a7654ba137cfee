package runtime

import (
	"errors"
	"flag"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

var rewritePages = flag.Bool("rewrite", false, "rewrite what commands print in docs/")

// TestPages runs the commands of every page of docs/ on nodes, and compares what they print with what the page shows.
func TestPages(t *testing.T) {
	netnstest.Require(t, "iptables", "nft", "bridge", "host-local", "cnitool", "nsenter", "make", "pkill", "bash", "curl", "script", "conntrack", "systemd-analyze")
	pages, err := filepath.Glob("docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	for _, file := range pages {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text := string(readFile(t, file))
			prints := (&page{file: file}).follow(t, steps(text))
			if *rewritePages && !t.Failed() {
				writeFile(t, file, []byte(rewrite(text, prints)), 0o644)
			}
		})
	}
}

// page is one that is being followed.
type page struct {
	file string
	node *reader // nil: none yet
}

func (p *page) follow(t *testing.T, all []step) map[int][]string {
	t.Helper()
	prints := map[int][]string{}
	for _, s := range all {
		if s.what != "block" && s.what != "node" && p.node == nil {
			t.Fatalf("%s:%d: %s without a node", p.file, s.line, s.what)
		}
		switch s.what {
		case "node":
			p.node = newPageNode(t)
		case "run":
			if out, status := p.shell(t, s.text); status != 0 {
				t.Fatalf("%s:%d: %s: exit status %d\n%s", p.file, s.line, s.text, status, out)
			}
		case "start":
			p.node.background(t, s.text)
		case "await":
			netnstest.Eventually(t, 10*time.Second, s.text, func() bool { _, status := p.shell(t, s.text); return status == 0 })
		case "picture":
			p.picture(t, s)
		case "block":
			p.elsewhere(t, s)
		case "console":
			out, status := p.shell(t, s.text)
			got := printed(out, status)
			prints[s.line] = got
			t.Logf("$ %s\n%s", s.text, out)
			if shown := trimmed(s.shown); !*rewritePages && !matches(shown, got) {
				t.Errorf("%s:%d: $ %s\nprints\n%s\nand the page shows\n%s\n(make docs rewrites it)", p.file, s.line, s.text,
					strings.Join(got, "\n"), strings.Join(shown, "\n"))
			}
		}
	}
	return prints
}

// trimmed is without the empty lines that end a block.
func trimmed(lines []string) []string {
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// elsewhere tries commands for a cluster as those of the README. A page without a node has them tried in a checkout.
func (p *page) elsewhere(t *testing.T, s step) {
	t.Helper()
	if s.block.language == "ini" {
		p.unit(t, s)
		return
	}
	if s.block.language != "sh" && (s.block.language != "" || s.block.isData()) {
		return
	}
	if p.node == nil {
		p.node = newPageNode(t)
	}
	for _, command := range s.block.commands() {
		p.node.follow(t, command)
	}
}

// unit puts a service on the node, whose path is in the block's first line, and asks systemd what it thinks of it. That names also a
// program that is not there.
func (p *page) unit(t *testing.T, s step) {
	t.Helper()
	path, found := strings.CutPrefix(s.block.lines[0], "# /etc/systemd/system/")
	if !found || p.node == nil {
		t.Fatalf("%s:%d: want a node, and # /etc/systemd/system/NAME as the first line of a service", p.file, s.line)
	}
	path = "/etc/systemd/system/" + path
	writeFile(t, filepath.Join(p.node.disk, path), []byte(strings.Join(s.block.lines, "\n")+"\n"), 0o644)
	if out, status := p.shell(t, "systemd-analyze verify --man=no "+path); status != 0 || strings.TrimSpace(out) != "" {
		t.Errorf("%s:%d: systemd-analyze verify: exit status %d\n%s", p.file, s.line, status, out)
	}
}

// picture compares what a terminal shows of a command with the picture in docs/.
func (p *page) picture(t *testing.T, s step) {
	t.Helper()
	name, command, _ := strings.Cut(s.text, " ")
	out, _ := p.shell(t, "TERM=xterm script --quiet --return --command '"+command+"' /dev/null </dev/null")
	file, now := filepath.Join("docs", name), picture(command, steady(out))
	if *rewritePages {
		writeFile(t, file, []byte(now), 0o644)
	} else if was := string(readFile(t, file)); was != now {
		t.Errorf("%s:%d: %s is not what a terminal shows now (make docs rewrites it):\n%s", p.file, s.line, file, out)
	}
}

func (p *page) shell(t *testing.T, command string) (string, int) {
	t.Helper()
	out, err := p.node.try("sh", "-c", "cd /root; "+command)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out, 0
	case errors.As(err, &exit):
		return out, exit.ExitCode()
	}
	t.Fatalf("%s:%s: %v", p.file, command, err)
	return "", 0
}

// podScript attaches a pod of the namespace default to the node's network, as a container runtime would.
const podScript = `#!/bin/sh -eu
ip netns add "$1"
export CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=$1" NETCONFPATH=/etc/cni/net.d CNI_PATH=/opt/cni/bin
exec cnitool add pods "/run/netns/$1"
`

// newPageNode is a node on which the programs are in the PATH, and nothing is installed.
func newPageNode(t *testing.T) *reader {
	t.Helper()
	r := newReader(t)
	for _, program := range programs() {
		writeFile(t, filepath.Join(r.disk, "usr.local/bin", program), readFile(t, testkit.Program(program)), 0o755)
	}
	writeFile(t, filepath.Join(r.disk, confFile), plainNetwork(t), 0o644)
	writeFile(t, filepath.Join(r.disk, "usr.local/bin/pod"), []byte(podScript), 0o755)
	return r
}

// plainNetwork is the example's network without our entry, as a person wrote it.
func plainNetwork(t *testing.T) []byte {
	t.Helper()
	text := string(readFile(t, "conf/10-bridge-ip-masq.conflist"))
	before, entry, ok := strings.Cut(text, ",\n    {\n      \"type\": \"ip-masq\"")
	_, after, closed := strings.Cut(entry, "\n    }\n")
	if !ok || !closed {
		t.Fatalf("the example has no entry of ip-masq at its end:\n%s", text)
	}
	return []byte(before + "\n" + after)
}

// TestPageFormat: what the form of the pages means.
func TestPageFormat(t *testing.T) {
	t.Parallel()
	text := "# T\n<!-- node -->\n<!-- run: a b -->\n\n```console\n$ one\nx\n...\nz\n$ two\nold\n```\n\n```sh\nkubectl get pods\n```\n\n    make x\n    make y\n\ntext\n    no\n"
	var got []string
	for _, s := range steps(text) {
		got = append(got, s.what+" "+s.text+"|"+strings.Join(s.shown, ",")+"|"+strings.Join(s.block.lines, ","))
	}
	want := []string{"node ||", "run a b||", "console one|x,...,z|", "console two|old|", "block ||kubectl get pods", "block ||    make x,    make y"}
	if !slices.Equal(got, want) {
		t.Errorf("steps %q, want %q", got, want)
	}
	for _, c := range []struct {
		shown, got string
		want       bool
	}{{"a|b", "a|b", true}, {"a|...", "a|b|c", true}, {"...|c", "a|b|c", true}, {"...|c", "a|b", false}, {"a", "a|b", false}, {"a|b", "a", false}} {
		if matches(strings.Split(c.shown, "|"), strings.Split(c.got, "|")) != c.want {
			t.Errorf("%q shows %q: want %v", c.got, c.shown, c.want)
		}
	}
	if got := printed("pid 12 since 2026-11-25T22:00:00Z\n\n", 3); !slices.Equal(got, []string{"pid 4711 since 2026-01-02T15:04:05Z", "(exit status 3)"}) {
		t.Errorf("printed %q", got)
	}
	rewritten := rewrite(text, map[int][]string{6: {"never"}, 10: {"new", "lines"}})
	if want := strings.Replace(text, "old\n", "new\nlines\n", 1); rewritten != want {
		t.Errorf("rewritten\n%s\nwant\n%s", rewritten, want)
	}
	if rewrite(rewritten, map[int][]string{6: {"never"}, 10: {"new", "lines"}}) != rewritten {
		t.Error("a second rewrite changes the page")
	}
}
