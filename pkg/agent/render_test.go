package agent_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

var update = flag.Bool("update", false, "write the .golden files instead of comparing with them")

// rendered are configurations whose desired state is in testdata/render: NAME.golden in the words of iptables-restore,
// NAME.json.golden as a value.
var rendered = []struct{ name, file, flags string }{
	{"defaults", "", ""},
	{"empty-list", "nonMasqueradeCIDRs: []\n", ""},
	{"link-local", "nonMasqueradeCIDRs: [10.0.0.0/8]\nmasqLinkLocal: true\n", ""},
	{"order", "nonMasqueradeCIDRs: [192.168.0.0/16, 10.1.0.0/16, 10.0.0.0/8, 10.1.0.0/16]\n", ""},
	{"exceptions", "nonMasqueradeCIDRs: [10.0.0.0/8, 172.16.0.0/12, 10.1.2.0/24]\nmasqueradeCIDRs: [10.1.0.0/16, 172.16.5.5/32]\n", ""},
	{"ipv6", "nonMasqueradeCIDRs: [10.0.0.0/8, 'fd00::/8']\nmasqueradeCIDRs: ['fd00:1::/32']\n", "--enable-ipv6"},
	{"ipv6-defaults", "masqLinkLocalIPv6: true\n", "--enable-ipv6"},
	{"output-interfaces", "outputInterfaces: [eth0, 'bond*', '!bond7']\n", "--enable-ipv6"},
	{"one-output-interface", "outputInterfaces: [eth0]\n", ""},
	{"node-traffic", "nodeTraffic: true\n", ""},
	{"egress", "masqueradeCIDRs: [10.9.0.0/16]\negress:\n- {destinations: [203.0.113.0/24], sourceAddresses: [198.19.255.0/24], whenMissing: drop}\n" +
		"- {destinations: [203.0.113.7/32], sourceAddresses: [198.19.255.0/24]}\n", "--enable-ipv6"},
	{"source-addresses", "podAnnotations: [ip-masq-agent/source-addresses]\n", ""},
	{"custom-chain", "", "--masq-chain=NODE-MASQ"},
	{"sources-all", "nonMasqueradeCIDRs: [10.0.0.0/8]\n", "--sources=all --enable-ipv6"},
	{"to-ports", "nonMasqueradeCIDRs: [10.0.0.0/8]\nmasqueradeCIDRs: [10.1.0.0/16]\n", "--to-ports=1024-29999,32768-49151,61000-65535"},
	{"one-port-and-another", "nonMasqueradeCIDRs: []\n", "--to-ports=1024,65535"},
	{"not-random", "nonMasqueradeCIDRs: [10.0.0.0/8]\n", "--random-fully=false"},
	{"all-reserved-ranges", "", "--nomasq-all-reserved-ranges --masq-chain=IP-MASQ"},
}

// attached are the pods on record in every case.
var attached = []attachment.Attachment{
	pod("pods", "8f3a5b2c9d7e6f10aabbccddeeff00112233445566778899aabbccddeeff0011", "eth0", "10.244.0.2", "fd00:244::2"),
	pod("pods", "0011", "eth0", "10.244.0.10"),
	pod(`a "quoted" network`, "x", "net1", "10.245.0.2"),
}

func pod(network, container, ifName string, addresses ...string) attachment.Attachment {
	a := attachment.Attachment{Owner: attachment.Owner{Network: network, ContainerID: container, IfName: ifName}}
	for _, address := range addresses {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(address))
	}
	return a
}

func record(t *testing.T, stateDir string) {
	t.Helper()
	for _, a := range attached {
		if err := (attachment.Store{Dir: filepath.Join(stateDir, "attachments")}).Put(a); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRenderGolden needs neither root nor a kernel: render is pure but for the files that it reads.
func TestRenderGolden(t *testing.T) {
	state := t.TempDir()
	record(t, state)
	for _, c := range rendered {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(file, []byte(c.file), 0o644); err != nil {
				t.Fatal(err)
			}
			args := append([]string{"--config", file, "--state-dir", state, "--backend", "iptables"}, strings.Fields(c.flags)...)
			compareGolden(t, filepath.Join("testdata/render", c.name+".golden"), output(t, append([]string{"render"}, args...)...))
			compareGolden(t, filepath.Join("testdata/render", c.name+".json.golden"), output(t, append([]string{"render", "--output=json"}, args...)...))
		})
	}
}

// TestRenderObeysTheProbe: what the probe found missing on this host is not in the rules, nor in what is printed of them.
func TestRenderObeysTheProbe(t *testing.T) {
	boot := strings.TrimSpace(read(t, "/proc/sys/kernel/random/boot_id"))
	for record, random := range map[string]bool{
		`{"bootID":"` + boot + `","backend":"iptables-nft","features":{"randomFully":true}}`:  true,
		`{"bootID":"` + boot + `","backend":"iptables-nft","features":{"randomFully":false}}`: false,
		`{"bootID":"` + boot + `","failure":"no usable backend","features":{}}`:               true,
		`{"bootID":"another","backend":"iptables-nft","features":{"randomFully":false}}`:      true,
	} {
		state := t.TempDir()
		empty := filepath.Join(state, "config")
		overwrite(t, empty, "")
		overwrite(t, filepath.Join(state, "backend.json"), record)
		if got := output(t, "render", "--state-dir", state, "--config", empty, "--backend", "iptables"); strings.Contains(got, "--random-fully") != random {
			t.Errorf("with %s, random is %t:\n%s", record, !random, got)
		}
	}
}

// TestRenderIsWhatTheKernelHolds compares the text with `iptables -S` of our chains after a sync, and the root rule.
func TestRenderIsWhatTheKernelHolds(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		record(t, r.StateDir)
		for _, c := range rendered {
			t.Run(c.name, func(t *testing.T) {
				r.Write(t, c.file)
				flags := strings.Fields(c.flags)
				r.Sync(t, flags...)
				want := r.Agent(t, "render", flags...)
				if diff := cmp.Diff(want.Stdout, r.held(t, want.Stdout)); diff != "" || want.Code != 0 {
					t.Errorf("exit %d, render differs from the kernel (-render +kernel):\n%s", want.Code, diff)
				}
			})
		}
	})
}

// held writes down what the kernel holds in the form of render, for the families and chains that it names.
func (r *rig) held(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	for _, family := range []string{"IPv4", "IPv6"} {
		_, block, found := strings.Cut(text, "# "+family+"\n")
		if !found {
			continue
		}
		block, _, _ = strings.Cut(block, "COMMIT\n")
		program := map[string]string{"IPv4": "iptables", "IPv6": "ip6tables"}[family]
		var declared, rules []string
		for line := range strings.Lines(block) {
			if chain, ok := strings.CutPrefix(line, ":"); ok {
				chain, _, _ = strings.Cut(chain, " ")
				declared = append(declared, line)
				rules = append(rules, strings.SplitAfter(r.Run(t, program, "-w", "-t", "nat", "-S", chain), "\n")[1:]...)
			}
		}
		_, root, _ := strings.Cut(r.Run(t, program, "-w", "-t", "nat", "-S", "POSTROUTING"), "\n")
		b.WriteString("# " + family + "\n*nat\n" + strings.Join(declared, "") + strings.Join(rules, "") + root + "COMMIT\n")
	}
	return b.String()
}

// TestRenderTouchesNoKernel runs it where no table is, and looks for tables and for started programs afterwards.
func TestRenderTouchesNoKernel(t *testing.T) {
	eachIPTables(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "strace", "nft")
		record(t, r.StateDir)
		for _, format := range []string{"text", "json"} {
			started, got := netnstest.CountExec(t, r.Space, netnstest.Cmd{Args: r.Command("render", "--output", format, "--enable-ipv6")})
			if started != 0 || got.Code != 0 || got.Stdout == "" {
				t.Errorf("%s: started %d programs, exit %d\n%s", format, started, got.Code, got.Stderr)
			}
		}
		if tables := r.Run(t, "nft", "list", "tables"); tables != "" {
			t.Errorf("nft tables: %s", tables)
		}
		if tables := r.Run(t, "cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"); tables != "" {
			t.Errorf("legacy tables: %s", tables)
		}
		for _, left := range []string{r.DataDir, r.StateDir} {
			if entries, _ := os.ReadDir(left); len(entries) > 0 && entries[0].Name() != "attachments" {
				t.Errorf("wrote %v", entries)
			}
		}
	})
}

// output runs the agent outside of any node and returns its standard output.
func output(t *testing.T, args ...string) string {
	t.Helper()
	got := invoke(t, args...)
	if got.Code != 0 {
		t.Fatalf("%v: exit %d\n%s", args, got.Code, got.Stderr)
	}
	return got.Stdout
}

func compareGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(read(t, path), got); diff != "" {
		t.Errorf("differs from %s (-want +got), go test -update writes it:\n%s", path, diff)
	}
}
