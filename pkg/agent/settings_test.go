package agent_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// rendered are the settings that render prints.
func (r *rig) rendered(t *testing.T, args ...string) string {
	t.Helper()
	got := r.Agent(t, "render", append(args, "--output=json")...)
	var state struct{ Settings policy.Settings }
	if err := json.Unmarshal([]byte(got.Stdout), &state); got.Code != 0 || err != nil {
		t.Fatalf("exit %d, %v\n%s", got.Code, err, got.Stderr)
	}
	s := state.Settings
	text := string(s.Sources)
	if s.RandomFully {
		text += " random"
	}
	if s.AutoPorts {
		text += " auto"
	}
	return strings.TrimSpace(text + " " + s.ToPorts.String())
}

// status is the document of the command.
func (r *rig) statusOf(t *testing.T, args ...string) status.Status {
	t.Helper()
	got := r.Agent(t, "status", append(args, "--output=json")...)
	var s status.Status
	if err := json.Unmarshal([]byte(got.Stdout), &s); got.Code != 0 || err != nil {
		t.Fatalf("exit %d, %v\n%s", got.Code, err, got.Stderr)
	}
	return s
}

// TestFlagsAndKeys: a flag that is given wins, also with the value of its default, then the key, then the default.
func TestFlagsAndKeys(t *testing.T) {
	r := newRig(t, testkit.Variants()[0])
	for _, c := range []struct{ file, flags, want string }{
		{"", "", "pods random"},
		{"sources: all\nrandomFully: false\ntoPorts: 2000-2009", "", "all 2000-2009"},
		{"sources: all\nrandomFully: false\ntoPorts: 2000-2009", "--sources=pods --random-fully --to-ports=", "pods random"},
		{"sources: all\nrandomFully: false\ntoPorts: 2000-2009", "--sources=pods", "pods 2000-2009"},
		{"sources: pods\nrandomFully: true\ntoPorts: auto", "--sources=all --random-fully=false --to-ports=5,6", "all 5,6"},
		{"toPorts: 2000-2009", "--to-ports=auto", "pods random auto 1024-29999,61000-65535"},
		{"toPorts: auto", "--service-node-port-range=2000-2999", "pods random auto 1024-1999,3000-32767,61000-65535"},
	} {
		r.Write(t, c.file)
		if got := r.rendered(t, strings.Fields(c.flags)...); got != c.want {
			t.Errorf("%q under %q: %s, want %s", c.file, c.flags, got, c.want)
		}
	}
}

// TestPersistedFlags: without a daemon, a command goes by the flags that the last one had, and by the file where that had none.
func TestPersistedFlags(t *testing.T) {
	r := newRig(t, testkit.Variants()[0])
	policyFile := filepath.Join(r.DataDir, "policy.json")
	for _, c := range []struct{ name, file, sync, then, want string }{
		{"a key", "toPorts: 2000-2009", "", "toPorts: 2000-2009", "pods random 2000-2009"},
		{"another key", "toPorts: 2000-2009", "", "toPorts: 3000-3009", "pods random 3000-3009"},
		{"no key any more", "toPorts: 2000-2009\nsources: all\nrandomFully: false", "", "", "pods random"},
		{"a flag", "toPorts: 2000-2009", "--to-ports=4000-4009 --sources=all", "toPorts: 3000-3009\nsources: pods\nrandomFully: false", "all 4000-4009"},
		{"a flag with the value of its default", "", "--random-fully --sources=pods", "randomFully: false\nsources: all", "pods random"},
		{"auto with other node ports", "toPorts: auto", "--service-node-port-range=2000-2999", "toPorts: auto", "pods random auto 1024-1999,3000-32767,61000-65535"},
		{"auto by a flag", "", "--to-ports=auto", "toPorts: 1-2", "pods random auto 1024-29999,61000-65535"},
		{"a bad file", "sources: all\nrandomFully: false", "", "sources: some", "error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.RemoveAll(policyFile); err != nil {
				t.Fatal(err)
			}
			r.Write(t, c.file)
			r.Sync(t, strings.Fields(c.sync)...)
			r.Write(t, c.then)
			if c.want == "error" { // the persisted settings stay, also those that were keys
				if got := r.Agent(t, "sync"); got.Code != 1 {
					t.Errorf("exit %d", got.Code)
				}
				if got := read(t, policyFile); !strings.Contains(got, `"sources":"all"`) || !strings.Contains(got, `"randomFully":false`) {
					t.Errorf("persisted %s", got)
				}
				return
			}
			if got := r.rendered(t); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	t.Run("of an older agent", func(t *testing.T) {
		overwrite(t, policyFile, strings.Replace(head, `"pods"`, `"all"`, 1)+`"nonMasqueradeCIDRs":["10.0.0.0/8"],"masqLinkLocal":false,"masqLinkLocalIPv6":false}`)
		r.Write(t, "randomFully: true")
		if got, want := r.rendered(t), "all 7-9"; got != want {
			t.Errorf("%s, want %s: its settings were flags", got, want)
		}
	})
}

// head begins a policy that an agent wrote down which knew no keys for settings.
const head = `{"version":1,"settings":{"chain":"IP-MASQ-AGENT","sources":"pods","ipv6":false,"randomFully":false,"toPorts":[{"first":7,"last":9}]},`

// egress is a group of all destinations that chooses the address which masquerading would give.
const egress = "egress: [{destinations: [0.0.0.0/0], sourceAddresses: [192.0.2.0/24]}]\n"

// TestSettingsLive changes the keys under a running daemon, while a pod sends all the time: no packet is seen with its address.
func TestSettingsLive(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		pod := r.AddPod(t, "a", attached[1].Addresses[0].String())
		record(t, r.StateDir)
		r.Write(t, never)
		agent := r.startReady(t)
		stream := startStream(t, r, pod)
		for _, file := range []string{
			"sources: all\n", "toPorts: 20000-29999\nsources: all\n", "toPorts: 20000-29999\n", "randomFully: false\n", "sources: all\ntoPorts: auto\n", "",
			"nodeTraffic: true\n", "nodeTraffic: true\ntoPorts: 20000-29999\n", "nodeTraffic: true\n" + egress, egress, "sources: all\n" + egress, "nodeTraffic: true\n",
			"sources: all\n", "outputInterfaces: [internet]\n", "outputInterfaces: ['!corp']\nsources: all\n", "outputInterfaces: [int*]\nnodeTraffic: true\n" + egress, "",
		} {
			r.Write(t, never+file)
			says := func(word string) bool { return strings.Contains(file, word) }
			r.eventually(t, agent, file, func() bool {
				s := r.statusOf(t)
				p := s.Policy.Settings
				return (p.Sources == policy.SourcesAll) == says("sources: all") && p.NodeTraffic == says("nodeTraffic") && p.RandomFully != says("false") &&
					(p.ToPorts != nil) == says("toPorts") && (s.Policy.Egress != nil) == says("egress") && (s.Policy.OutputInterfaces != nil) == says("outputInterfaces") &&
					s.Drift != nil && len(s.Drift) == 0
			})
			if seen, err := pod.Seen("tcp", r.Internet.IPv4); err != nil || seen.Addr().String() != "192.0.2.1" || strings.Contains(file, "20000") && (seen.Port() < 20000 || seen.Port() > 29999) {
				t.Errorf("with %q: seen from %v, %v", file, seen, err)
			}
		}
		stream.check(t)
	})
}

// TestAutoPorts: the ports follow the kernel's at the next resync, stay where none is left, and status says what they are.
func TestAutoPorts(t *testing.T) {
	r := newRig(t, testkit.Variants()[0])
	sysctl := func(name, value string) {
		t.Helper()
		r.Run(t, "sh", "-c", `echo "$1" >/proc/sys/net/ipv4/`+name, "sh", value)
	}
	r.Write(t, often+"toPorts: auto\n")
	agent := r.startReady(t)
	chosen := func(ranges, clearOf string) {
		t.Helper()
		r.eventually(t, agent, "ports "+ranges, func() bool {
			c := r.statusOf(t).Policy.ChosenPorts
			return c != nil && c.Ranges == ranges && c.ClearOf == clearOf
		})
		if kernel := r.rules(t); !strings.Contains(kernel, strings.Split(ranges, ",")[0]) {
			t.Errorf("the kernel does not have %s:\n%s", ranges, kernel)
		}
	}
	chosen("1024-29999,61000-65535", "node ports 30000-32767, local ports 32768-60999")
	sysctl("ip_local_port_range", "10000 60999")
	chosen("1024-9999,61000-65535", "node ports 30000-32767, local ports 10000-60999")
	sysctl("ip_local_reserved_ports", "1024-4999,61000")
	chosen("5000-9999,61001-65535", "node ports 30000-32767, local ports 10000-60999, reserved ports 1024-4999,61000")
	sysctl("ip_local_port_range", "1024 65535")
	r.waitUnready(t, agent, "to-ports auto: no port is left (node ports 30000-32767, local ports 1024-65535, reserved ports 1024-4999,61000): narrow net.ipv4.ip_local_port_range, or write ranges instead of auto")
	if s := r.statusOf(t); s.Config.Valid || s.Policy.Settings.ToPorts.String() != "5000-9999,61001-65535" {
		t.Errorf("valid %t, ports %s", s.Config.Valid, s.Policy.Settings.ToPorts)
	}
	if got := r.Agent(t, "status"); !strings.Contains(got.Stdout, "no port is left") || !strings.Contains(got.Stdout, "toPorts: auto (ip-masq-agent:2)") {
		t.Errorf("status says\n%s", got.Stdout)
	}
	agent.Stop(syscall.SIGTERM, patience)
	agent = r.start(t) // the persisted ports stay, too
	r.waitUnready(t, agent, "no port is left")
	r.eventually(t, agent, "the persisted ports", func() bool { return strings.Contains(r.rules(t), "5000-9999") })
	sysctl("ip_local_port_range", "32768 60999")
	r.waitReady(t, agent)
	chosen("5000-29999,61001-65535", "node ports 30000-32767, local ports 32768-60999, reserved ports 1024-4999,61000")
	if got := r.Agent(t, "status"); !strings.Contains(got.Stdout, "source ports 5000-29999,61001-65535, clear of node ports 30000-32767") {
		t.Errorf("status says\n%s", got.Stdout)
	}
}

// TestBrokenFileOfADirectory: the good files go on changing, and what the broken one said stays.
func TestBrokenFileOfADirectory(t *testing.T) {
	r := newRig(t, testkit.Variants()[0])
	dir := t.TempDir()
	put := func(name, text string) { overwrite(t, filepath.Join(dir, name), text) }
	put("ip-masq-0", never)
	put("ip-masq-a", "nonMasqueradeCIDRs: [10.1.0.0/16]\n")
	put("ip-masq-b", "nonMasqueradeCIDRs: [10.2.0.0/16]\nsources: pods\n")
	record(t, r.StateDir)
	agent := r.startReady(t, "--config", dir)
	holds := func(what, want string) {
		t.Helper()
		r.eventually(t, agent, what, func() bool { return keeps(r.statusOf(t)) == want })
	}
	put("ip-masq-b", "nonMasqueradeCIDRs: [10.2.0.1/16]\n")
	bad := `ip-masq-b:1:22: nonMasqueradeCIDRs[0]: CIDR "10.2.0.1/16" is not aligned`
	r.waitUnready(t, agent, bad)
	put("ip-masq-a", "# changed\nnonMasqueradeCIDRs: [10.3.0.0/16]\n")
	holds("the change of the good file", "10.3.0.0/16 ip-masq-a:2, 10.2.0.0/16 ip-masq-b:1")
	if s := r.statusOf(t); s.Policy.Origin != status.OriginDirectory || s.Config.Valid || !strings.Contains(*s.Config.Error, bad) {
		t.Errorf("origin %s, config %+v", s.Policy.Origin, s.Config)
	}
	text := r.Agent(t, "status").Stdout
	for _, want := range []string{"the good files of the config, and of the bad ones the last good content", "ip-masq-a:2", "sources: pods (ip-masq-b:2)"} {
		if !strings.Contains(text, want) {
			t.Errorf("status does not say %q:\n%s", want, text)
		}
	}
	if got := r.Agent(t, "explain", "--config", dir, "--src", attached[1].Addresses[0].String(), "--dst", "10.3.0.1"); !strings.Contains(got.Stdout, "ip-masq-a:2") {
		t.Errorf("explain does not name the line:\n%s%s", got.Stdout, got.Stderr)
	}
	agent.Stop(syscall.SIGTERM, patience)
	agent = r.start(t, "--config", dir)
	r.waitUnready(t, agent, bad)
	put("ip-masq-a", "nonMasqueradeCIDRs: [10.4.0.0/16]\n") // nobody knows what b should be, so all stays
	holds("the persisted policy", "10.3.0.0/16 , 10.2.0.0/16 ")
	put("ip-masq-b", "nonMasqueradeCIDRs: [10.5.0.0/16]\n")
	r.waitReady(t, agent)
	holds("all files", "10.4.0.0/16 ip-masq-a:1, 10.5.0.0/16 ip-masq-b:1")
	agent.Stop(syscall.SIGTERM, patience)
	put("ip-masq-b", "{*")
	if err := os.Remove(filepath.Join(r.DataDir, "policy.json")); err != nil {
		t.Fatal(err)
	}
	agent = r.start(t, "--config", dir) // nobody knows what b ever was
	r.waitUnready(t, agent, "ip-masq-b:1:2: invalid JSON")
	holds("the good file", "10.4.0.0/16 ip-masq-a:1")
}

// keeps are the prefixes of a status that keep the pod's address, with their places, but link-local.
func keeps(s status.Status) string {
	var all []string
	for _, p := range s.Policy.Prefixes {
		if p.Verdict != policy.Keep || p.Prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		place := ""
		if p.File != nil {
			place = filepath.Base(*p.File) + ":" + strconv.Itoa(*p.Line)
		}
		all = append(all, p.Prefix.String()+" "+place)
	}
	return strings.Join(all, ", ")
}

// TestTranslationLogFollowsSources: whose connections are logged follows the file, too.
func TestTranslationLogFollowsSources(t *testing.T) {
	r := newRig(t, testkit.Variants()[0])
	pod := r.AddPod(t, "b", "10.244.0.7") // on no record
	log := filepath.Join(t.TempDir(), "translations")
	r.Write(t, never)
	agent := r.startReady(t, "--translation-log="+log, "--translation-log-starts")
	r.Write(t, never+"sources: all\n")
	r.eventually(t, agent, "a line about it", func() bool {
		_, err := pod.Seen("tcp", r.Internet.IPv4)
		lines, _ := os.ReadFile(log) // there is none before the first line
		return err == nil && strings.Contains(string(lines), `"10.244.0.7"`)
	})
}
