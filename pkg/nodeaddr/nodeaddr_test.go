package nodeaddr_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/nodeaddr"
)

// list prints what List finds in a namespace.
func list(t *testing.T, s *netnstest.Space) (a nodeaddr.Addresses) {
	t.Helper()
	if err := s.Do(func() (err error) { a, err = nodeaddr.List(); return err }); err != nil {
		t.Fatal(err)
	}
	return a
}

// TestList: what stands on any interface counts when it works, and what nobody could answer does not.
func TestList(t *testing.T) {
	netnstest.Require(t, "ip")
	s := netnstest.NewSpace(t, "node")
	run := func(command string) {
		t.Helper()
		s.Run(t, append([]string{"ip"}, strings.Fields(command)...)...)
	}
	run("link set lo up")
	run("link add d0 type veth peer name d1") // d1 stays down
	run("link set d0 up")
	run("addr add 192.0.2.7/32 dev lo")
	run("addr add 198.51.100.1 peer 198.51.100.2/32 dev d0")
	run("addr add 203.0.113.5/24 dev d1")
	run("addr add 203.0.113.6/24 dev d1") // a secondary one
	run("addr add 203.0.113.6/24 dev d0") // twice on the node
	run("addr add 2001:db8::1/64 dev d0 nodad")
	run("addr add 2001:db8::2/64 dev d0 nodad preferred_lft 0")
	run("addr add 2001:db8:1::9/128 dev lo nodad preferred_lft 0")
	want := "{[192.0.2.7 198.51.100.1 203.0.113.5 203.0.113.6 2001:db8::1] [2001:db8::2 2001:db8:1::9]}"
	if got := fmt.Sprint(list(t, s)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestDuplicateAddress: an address that is being checked, or that another host has, is no source.
func TestDuplicateAddress(t *testing.T) {
	netnstest.Require(t, "ip")
	n := netnstest.NewNode(t)
	ip := func(s *netnstest.Space, command string) {
		t.Helper()
		s.Run(t, append([]string{"ip"}, strings.Fields(command)...)...)
	}
	names := func() string { return fmt.Sprint(list(t, n.Space)) }
	const address = "2001:db8::77"
	events := make(chan netip.Addr, 100)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := n.Do(func() error { return nodeaddr.Watch(ctx, func(a netip.Addr) { events <- a }) }); err != nil {
		t.Fatal(err)
	}
	toNode, toHost := linkTo(t, n.Space, "2001:db8::1"), linkTo(t, n.Internet.Space, "2001:db8::2")
	if err := n.Sysctl("net/ipv6/conf/all/accept_dad=1", "net/ipv6/conf/"+toNode+"/accept_dad=1", "net/ipv6/conf/"+toNode+"/dad_transmits=1"); err != nil {
		t.Fatal(err)
	}
	ip(n.Space, "addr add "+address+"/64 dev "+toNode)
	if strings.Contains(names(), address) {
		t.Error("an address counts although it is still being checked")
	}
	for timeout := time.After(netnstest.Limit(10 * time.Second)); !strings.Contains(names(), address); {
		select {
		case <-events: // that the check is over is an event of its own
		case <-timeout:
			t.Fatal("the address does not come into use")
		}
	}
	ip(n.Space, "addr del "+address+"/64 dev "+toNode)
	ip(n.Internet.Space, "addr add "+address+"/64 dev "+toHost+" nodad")
	ip(n.Space, "addr add "+address+"/64 dev "+toNode)
	netnstest.Eventually(t, netnstest.Limit(10*time.Second), "the check fails", func() bool {
		return strings.Contains(n.Run(t, "ip", "-6", "addr", "show", "dev", toNode), "dadfailed")
	})
	if strings.Contains(names(), address) {
		t.Error("an address counts although another host has it")
	}
}

// linkTo is the interface that has an address.
func linkTo(t *testing.T, s *netnstest.Space, address string) string {
	t.Helper()
	fields := strings.Fields(s.Run(t, "ip", "-o", "-6", "addr", "show", "to", address))
	if len(fields) < 2 {
		t.Fatalf("no interface has %s", address)
	}
	return fields[1]
}

// TestIn: of each prefix the preferred addresses, and where it has none the deprecated.
func TestIn(t *testing.T) {
	a := nodeaddr.Addresses{
		Preferred:  []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::1")},
		Deprecated: []netip.Addr{netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8:1::9")},
	}
	for prefixes, want := range map[string]string{
		"":                              "[]",
		"192.0.2.0/24":                  "[192.0.2.1 192.0.2.9]",
		"192.0.2.0/24 192.0.2.0/29":     "[192.0.2.1 192.0.2.9]",
		"10.0.0.0/8":                    "[]",
		"2001:db8::/32":                 "[2001:db8::1]",
		"2001:db8::2/128":               "[2001:db8::2]",
		"2001:db8:1::/48 192.0.2.8/29":  "[192.0.2.9 2001:db8:1::9]",
		"2001:db8::/32 2001:db8:1::/48": "[2001:db8::1 2001:db8:1::9]",
	} {
		var all []netip.Prefix
		for _, text := range strings.Fields(prefixes) {
			all = append(all, netip.MustParsePrefix(text))
		}
		if got := fmt.Sprint(a.In(all)); got != want {
			t.Errorf("%s: %s, want %s", prefixes, got, want)
		}
	}
}

// TestWatch: addresses that come and go are reported, those of pods' interfaces that nobody can choose are not.
func TestWatch(t *testing.T) {
	netnstest.Require(t, "ip")
	s := netnstest.NewSpace(t, "node")
	events := make(chan netip.Addr, 100)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := s.Do(func() error { return nodeaddr.Watch(ctx, func(a netip.Addr) { events <- a }) }); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"link add v0 type veth peer name v1", "link set v0 up", "link set v1 up", // each gets fe80::…
		"addr add 192.0.2.7/32 dev v0", "addr del 192.0.2.7/32 dev v0", "addr add 2001:db8::7/128 dev v0 nodad", "link del v0",
	} {
		s.Run(t, append([]string{"ip"}, strings.Fields(command)...)...)
	}
	for _, want := range []string{"192.0.2.7", "192.0.2.7", "2001:db8::7", "2001:db8::7"} {
		select {
		case got := <-events:
			if got.String() != want {
				t.Errorf("%s is reported, want %s", got, want)
			}
		case <-time.After(netnstest.Limit(5 * time.Second)):
			t.Fatalf("%s is not reported", want)
		}
	}
}

// FuzzParse: what the kernel never sends must not break the decoder either.
func FuzzParse(f *testing.F) {
	f.Add([]byte{2, 32, 0, 0, 1, 0, 0, 0, 8, 0, 2, 0, 192, 0, 2, 7})
	f.Fuzz(func(_ *testing.T, data []byte) { nodeaddr.Parse(data) })
}
