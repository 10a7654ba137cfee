package runtime

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestReadmeLook runs the commands of the README's chapters after the installation, on a node with a pod that has the name which they
// ask for: those of one backend on a node that uses it.
func TestReadmeLook(t *testing.T) {
	netnstest.Require(t, "iptables", "nft", "bridge", "host-local", "cnitool", "curl")
	for backend, other := range map[string]string{"iptables": "nft ", "nftables": "iptables "} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			p := &page{file: "README.md", node: newPageNode(t)}
			p.node.run(t, "ip-masq-installer", "install")
			p.node.background(t, "ip-masq-agent --backend="+backend)
			p.node.run(t, "pod", "web-0")
			commands := 0
			for _, b := range blocks(chapter(string(readFile(t, "README.md")), "## Look inside")) {
				if b.isData() {
					continue
				}
				for _, command := range b.commands() {
					if strings.HasPrefix(command, other) {
						continue
					}
					commands++
					out, status := p.shell(t, command)
					if warned := status == 3 && strings.HasSuffix(command, " check"); status != 0 && !warned || out == "" && !strings.HasSuffix(command, " sync") {
						t.Errorf("%s: exit status %d\n%s", command, status, out)
					}
				}
			}
			if commands < 5 {
				t.Errorf("the chapter ## Look inside has %d commands", commands)
			}
		})
	}
}

// TestReadmeLint: what the README shows of lint is what it prints of a file with the mistake, and the file that it shows is one.
func TestReadmeLint(t *testing.T) {
	t.Parallel()
	node := newPageNode(t)
	shown := 0
	for _, b := range blocks(chapter(string(readFile(t, "README.md")), "## Configure")) {
		text := strings.TrimSpace(strings.ReplaceAll("\n"+strings.Join(b.lines, "\n"), "\n    ", "\n"))
		if b.isData() {
			writeFile(t, filepath.Join(node.disk, "root/whole"), []byte(text+"\n"), 0o644)
			shown++
			if out, err := node.try("ip-masq-agent", "lint", "--enable-ipv6", "/root/whole"); err != nil {
				t.Errorf("the README's file: %v\n%s", err, out)
			}
			continue
		}
		writeFile(t, filepath.Join(node.disk, "root/my-config"), []byte("nonMasqueradeCIDR: [10.0.0.0/8]\n"), 0o644)
		for _, s := range transcript(strings.Split(text, "\n"), 1) {
			shown++
			if out, _ := node.try("sh", "-c", "cd /root; "+s.text); !strings.Contains(out, strings.Join(trimmed(s.shown), "\n")) || len(s.shown) == 0 {
				t.Errorf("$ %s\nprints\n%s\nand the README shows %q", s.text, out, s.shown)
			}
		}
	}
	if shown < 2 {
		t.Errorf("the chapter ## Configure shows %d things", shown)
	}
}
