package conflicts

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// patience bounds one search, and one command.
var patience = netnstest.Limit(20 * time.Second)

// in runs a search in a network namespace.
func in(t *testing.T, space *netnstest.Space, q Query) ([]Conflict, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var found []Conflict
	err := space.Do(func() (err error) {
		found, err = Find(ctx, q)
		return err
	})
	return found, err
}

// mustFind is in for what can all be looked at.
func mustFind(t *testing.T, space *netnstest.Space, q Query) []Conflict {
	t.Helper()
	found, err := in(t, space, q)
	if err != nil {
		t.Fatalf("Find: %v", err)
	}
	return found
}

// brief is "OWNER: PLACE" of each conflict, without the numbers that the kernel gives.
func brief(found []Conflict) []string {
	var out []string
	for _, c := range found {
		where, _, _ := strings.Cut(c.Where, " handle ")
		out = append(out, c.Owner+": "+where)
	}
	return out
}

// load feeds a command on the namespace.
func load(t *testing.T, space *netnstest.Space, stdin string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := space.Exec(ctx, netnstest.Cmd{Args: args, Stdin: stdin})
	if err != nil || r.Code != 0 {
		t.Fatalf("%v: %v, exit %d\n%s%s\ninput:\n%s", args, err, r.Code, r.Stdout, r.Stderr, stdin)
	}
}

// script makes lines of `iptables -S` the input of iptables-restore --noflush: what they name is emptied first.
func script(rules string) string {
	var b strings.Builder
	b.WriteString("*nat\n:cali-fip-snat -\n-F POSTROUTING\n")
	declared := map[string]bool{"POSTROUTING": true}
	for line := range strings.Lines(rules) {
		if chain := words(line)[1]; !declared[chain] {
			declared[chain] = true
			b.WriteString(":" + chain + " -\n")
		}
	}
	return b.String() + strings.TrimSpace(rules) + "\nCOMMIT\n"
}

// scene is a node with one pod that is behind the policy, by iptables of one kind.
type scene struct {
	*netnstest.Node
	pod  *netnstest.Pod
	kind backend.Kind
	also []netip.Addr // addresses of further pods
}

func newScene(t *testing.T, kind backend.Kind) *scene {
	t.Helper()
	netnstest.Require(t, string(kind), "nft")
	node := netnstest.NewNode(t)
	return &scene{Node: node, pod: node.AddPod(t, "a"), kind: kind}
}

func (s *scene) query() Query {
	q := query()
	q.Sources = slices.Concat(s.pod.Addrs, s.also)
	return q
}

// ours puts our rules in place, behind what stands in POSTROUTING.
func (s *scene) ours(t *testing.T) {
	t.Helper()
	s.apply(t, s.query().Policy)
}

// apply is ours for a policy, on a node that has the addresses.
func (s *scene) apply(t *testing.T, p policy.Policy, node ...netip.Addr) {
	t.Helper()
	owner := attachment.Owner{Network: "net", ContainerID: "a", IfName: "eth0"}
	want := ruleset.Build(p, []attachment.Attachment{{Owner: owner, Addresses: s.query().Sources}}, ruleset.Node{Addresses: node})
	err := s.Do(func() error {
		b := iptables.New(s.kind, "")
		got, err := b.Observe(t.Context(), p.Settings, p.Settings.Families()...)
		if err == nil {
			_, err = b.Apply(t.Context(), got, want)
		}
		return err
	})
	if err != nil {
		t.Fatalf("apply our rules: %v", err)
	}
}

// ipset makes a set of prefixes.
func (s *scene) ipset(t *testing.T, name string, members ...string) {
	t.Helper()
	err := s.Do(func() error {
		options := netlink.IpsetCreateOptions{MaxElements: 1 << 20}
		if prefixes(members...)[0].Addr().Is6() {
			options.Family = unix.AF_INET6
		}
		if err := netlink.IpsetCreate(name, "hash:net", options); err != nil {
			return err
		}
		for _, member := range prefixes(members...) {
			entry := &netlink.IPSetEntry{IP: member.Addr().AsSlice(), CIDR: uint8(member.Bits())}
			if err := netlink.IpsetAdd(name, entry); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("ipset %s: %v", name, err)
	}
}

// keeps fails the test unless the host sees the pod's own address exactly where kept says so.
func (s *scene) keeps(t *testing.T, to netip.Addr, kept bool) {
	t.Helper()
	seen, err := s.pod.Seen("udp", to)
	if err != nil {
		t.Fatalf("a packet to %s: %v", to, err)
	}
	own := false
	for _, addr := range s.pod.Addrs {
		own = own || addr == seen.Addr()
	}
	if own != kept {
		t.Errorf("%s saw %s: the pod's own address: %v, want %v", to, seen.Addr(), own, kept)
	}
}
