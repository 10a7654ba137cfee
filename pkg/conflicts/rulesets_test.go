package conflicts

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// recorded is a ruleset of other software in testdata/rulesets: what it says in its comments, and the input of iptables-restore
// or nft. Origin and version are in the comments.
type recorded struct {
	name, text string
	want       []string // conflicts, as brief returns them
	fix        string   // a part of each fix
	bridges    []string // NAME=ADDRESS
	sets       []string // NAME=MEMBER
	mgmtport   string   // the interface behind which the pods are
}

var headerLine = regexp.MustCompile(`(?m)^# (want|fix|bridges|sets|mgmtport): (.*)$`)

func readRulesets(t *testing.T, pattern string) (all []recorded) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "rulesets", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no rulesets: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r := recorded{name: filepath.Base(file), text: string(data)}
		if !strings.HasPrefix(r.text, "# origin: ") {
			t.Errorf("%s does not say where it is from", file)
		}
		for _, m := range headerLine.FindAllStringSubmatch(r.text, -1) {
			switch m[1] {
			case "want":
				r.want = append(r.want, m[2])
			case "fix":
				r.fix = m[2]
			case "bridges":
				r.bridges = strings.Fields(m[2])
			case "sets":
				r.sets = strings.Fields(m[2])
			case "mgmtport":
				r.mgmtport = m[2]
			}
		}
		all = append(all, r)
	}
	return all
}

// judge loads a ruleset on a node of its own, with the agent's rules behind it, and compares what is found with what is wanted
// and with what packets of the pod show.
func (r recorded) judge(t *testing.T, kind backend.Kind, load func(s *scene)) {
	s := newScene(t, kind)
	for _, bridge := range r.bridges {
		name, address, _ := strings.Cut(bridge, "=")
		s.Run(t, "ip", "link", "add", name, "type", "bridge")
		s.Run(t, "ip", "addr", "add", address, "dev", name)
		s.Run(t, "ip", "link", "set", name, "up")
	}
	for _, set := range r.sets {
		name, member, found := strings.Cut(set, "=")
		if found {
			s.ipset(t, name, member)
			continue
		}
		name, kind, _ := strings.Cut(strings.TrimSuffix(name, ")"), "(")
		if err := s.Do(func() error { return netlink.IpsetCreate(name, kind, netlink.IpsetCreateOptions{}) }); err != nil {
			t.Fatalf("ipset %s: %v", name, err)
		}
	}
	if r.mgmtport != "" {
		s.Run(t, "ip", "link", "set", "pod1", "down")
		s.Run(t, "ip", "link", "set", "pod1", "name", r.mgmtport)
		s.Run(t, "ip", "link", "set", r.mgmtport, "up")
		s.Run(t, "ip", "route", "replace", s.pod.Addrs[0].String(), "dev", r.mgmtport)
		s.Run(t, "ip", "route", "add", "10.128.0.0/14", "dev", r.mgmtport)
	}
	metadata := s.Corp.AddAddr(t, "169.254.169.254")
	load(s)
	s.ours(t)
	found := mustFind(t, s.Space, s.query())
	var want []string
	for _, w := range r.want {
		want = append(want, strings.Replace(w, "IPTABLES", string(kind), 1))
	}
	if diff := cmp.Diff(want, brief(found)); diff != "" {
		t.Errorf("conflicts (-want +got):\n%s", diff)
	}
	for _, c := range found {
		if !strings.Contains(c.Fix, r.fix) {
			t.Errorf("fix %q does not say %q", c.Fix, r.fix)
		}
	}
	if r.fix != "" { // for ports of its own alone
		return
	}
	contradicted := false
	for _, protocol := range []string{"udp", "tcp"} {
		for i, to := range []netip.Addr{s.Corp.IPv4, metadata, s.Internet.IPv4} {
			seen, err := s.pod.Seen(protocol, to)
			if err != nil {
				t.Fatalf("%s to %s: %v", protocol, to, err)
			}
			own := slices.Contains(s.pod.Addrs, seen.Addr())
			s.wantDestination(t, to)
			contradicted = contradicted || own != (i < 2)
		}
	}
	if contradicted != (len(r.want) > 0) {
		t.Errorf("packets contradict the policy: %v, conflicts %v", contradicted, r.want)
	}
}

// TestRulesetsOfOtherSoftware has what other software writes: no false alarm, and every true conflict.
func TestRulesetsOfOtherSoftware(t *testing.T) {
	for _, r := range readRulesets(t, "*.iptables") {
		for _, kind := range []backend.Kind{backend.IPTablesNFT, backend.IPTablesLegacy} {
			t.Run(r.name+"/"+string(kind), func(t *testing.T) {
				r.judge(t, kind, func(s *scene) { load(t, s.Space, r.text, string(kind)+"-restore") })
			})
		}
	}
	for _, r := range readRulesets(t, "*.nft") {
		t.Run(r.name, func(t *testing.T) {
			needsNFT(t, r.name)
			r.judge(t, backend.IPTablesNFT, func(s *scene) { load(t, s.Space, r.text, "nft", "-f", "-") })
		})
	}
}

// needsNFT skips a ruleset that an older nft cannot read.
func needsNFT(t *testing.T, ruleset string) {
	t.Helper()
	if ruleset == "kube-proxy-1.36.nft" {
		netnstest.RequireNFT(t, 0, 1, "cannot read the maps of kube-proxy 1.36")
	}
}

// TestMetadataFixClears: what is advised for a rule that pods need ends the conflict.
func TestMetadataFixClears(t *testing.T) {
	walkTest{
		rules:  "-A POSTROUTING -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -j SNAT --to-source 10.99.0.1",
		change: func(q *Query) { q.Policy.Masquerade = prefixes("169.254.169.254/32") },
	}.run(t)
}
