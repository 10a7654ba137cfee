package conntrack_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// masquerading is a node with a pod whose packets to the Internet are masqueraded, while those to the corporate network are not.
func masquerading(t *testing.T) (*netnstest.Node, *netnstest.Pod) {
	t.Helper()
	netnstest.Require(t, "nft")
	n := netnstest.NewNode(t)
	pod := n.AddPod(t, "pod", "10.244.0.5", "fd00:244::5")
	n.Run(t, "nft", "table inet x { chain c { type nat hook postrouting priority 100; oifname internet masquerade; }; }")
	return n, pod
}

func on[T any](t *testing.T, n *netnstest.Node, call func() (T, error)) T {
	t.Helper()
	var result T
	err := n.Do(func() (err error) { result, err = call(); return err })
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// seen opens a connection, and returns what the server saw.
func seen(t *testing.T, pod *netnstest.Pod, network string, to netip.Addr) netip.AddrPort {
	t.Helper()
	got, err := pod.Seen(network, to)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func summary(kind string, f *conntrack.Flow) string {
	return fmt.Sprintf("%s %d %s -> %s as %s", kind, f.Original.Proto, f.Original.Src.Addr(), f.Original.Dst, f.Reply.Dst)
}

// TestTranslated: of four connections in each family, those to the corporate network are not listed.
func TestTranslated(t *testing.T) {
	t.Parallel()
	n, pod := masquerading(t)
	want := map[string]bool{}
	for i, to := range []netip.Addr{n.Internet.IPv4, n.Internet.IPv6, n.Corp.IPv4, n.Corp.IPv6} {
		for network, proto := range map[string]int{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP} {
			as := seen(t, pod, network, to)
			if i < 2 {
				want[fmt.Sprintf("open %d %s -> %s as %s", proto, pod.Addrs[i], netip.AddrPortFrom(to, netnstest.Port), as)] = true
			}
		}
	}
	table := on(t, n, conntrack.Open)
	defer table.Close()
	for range 2 { // the socket serves again
		got := map[string]bool{}
		if err := table.Translated(func(f *conntrack.Flow) { got[summary("open", f)] = true }); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
}

// next waits for an event.
func next(t *testing.T, e *conntrack.Events) (conntrack.Kind, *conntrack.Flow) {
	t.Helper()
	for deadline := time.Now().Add(netnstest.Limit(5 * time.Second)); time.Now().Before(deadline); e.Wait(100 * time.Millisecond) {
		kind, flow, ok, err := e.Next()
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return kind, flow
		}
	}
	t.Fatal("no event")
	return 0, nil
}

// TestEvents: a connection is reported as it begins and as it ends, with counts and times where the kernel keeps them; one that is
// not translated never wakes the reader.
func TestEvents(t *testing.T) {
	t.Parallel()
	netnstest.Require(t, "conntrack")
	n, pod := masquerading(t)
	if err := n.Sysctl("net/netfilter/nf_conntrack_acct=1", "net/netfilter/nf_conntrack_timestamp=1"); err != nil {
		t.Fatal(err)
	}
	events := on(t, n, conntrack.Listen)
	defer events.Close()
	for i, to := range []netip.Addr{n.Internet.IPv4, n.Internet.IPv6} {
		began := time.Now()
		seen(t, pod, "udp", n.Corp.IPv4)
		as := seen(t, pod, "udp", to)
		want := fmt.Sprintf("%d %s -> %s as %s", unix.IPPROTO_UDP, pod.Addrs[i], netip.AddrPortFrom(to, netnstest.Port), as)
		kind, flow := next(t, events)
		if got := summary("", flow); kind != conntrack.Began || strings.TrimSpace(got) != want {
			t.Errorf("%v %s, want %s", kind, got, want)
		}
		id := flow.ID
		n.Run(t, "conntrack", "-D", "-f", []string{"ipv4", "ipv6"}[i], "-p", "udp", "-s", pod.Addrs[i].String())
		kind, flow = next(t, events)
		if got := summary("", flow); kind != conntrack.Ended || strings.TrimSpace(got) != want || flow.ID != id {
			t.Errorf("%v %s, want %s", kind, got, want)
		}
		if !flow.Counted || flow.SentPackets != 1 || flow.ReceivedPackets != 1 || flow.Sent < 37 || flow.Received < 37 {
			t.Errorf("counts: %+v", flow)
		}
		if flow.Start < began.Add(-time.Second).UnixNano() || flow.Stop < flow.Start {
			t.Errorf("began %v, but from %d to %d", began, flow.Start, flow.Stop)
		}
		if _, flow, ok, err := events.Next(); ok || err != nil {
			t.Errorf("one more event: %+v, %v", flow, err)
		}
	}
}

// TestLost: what the socket has no room for is reported once, and reading goes on.
func TestLost(t *testing.T) {
	t.Parallel()
	n, pod := masquerading(t)
	events := on(t, n, conntrack.Listen)
	defer events.Close()
	if err := unix.SetsockoptInt(events.FD(), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		seen(t, pod, "udp", n.Internet.IPv4)
	}
	lost, got := 0, 0
	for {
		_, _, ok, err := events.Next()
		if errors.Is(err, conntrack.ErrLost) {
			lost++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		got++
	}
	if lost == 0 || got == 0 || got >= 20 {
		t.Errorf("%d events of 20, reported lost %d times", got, lost)
	}
	seen(t, pod, "udp", n.Internet.IPv4)
	if kind, _ := next(t, events); kind != conntrack.Began {
		t.Errorf("kind %v", kind)
	}
}

// TestStats: two connections that claim the same source port, of which the kernel drops one.
func TestStats(t *testing.T) {
	t.Parallel()
	n, pod := masquerading(t)
	n.Run(t, "nft", "insert rule inet x c meta l4proto udp oifname internet masquerade to :40000-40000")
	before := on(t, n, conntrack.Stats)
	seen(t, pod, "udp", n.Internet.IPv4)
	conn, err := pod.DialContext(t.Context(), "udp", net.JoinHostPort(n.Internet.IPv4.String(), "7777"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if after := on(t, n, conntrack.Stats); after.InsertFailed+after.Drop <= before.InsertFailed+before.Drop {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

// kernelFilters reports whether the kernel is one that can leave out other addresses' connections.
func kernelFilters(t *testing.T) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 5 || major == 5 && minor >= 8
}

// TestFrom: the kernel sends the connections that one address began, and an entry that was listed is deleted once.
func TestFrom(t *testing.T) {
	t.Parallel()
	n, pod := masquerading(t)
	other := n.AddPod(t, "other", "10.244.0.6", "fd00:244::6")
	filters := kernelFilters(t)
	table := on(t, n, conntrack.Open)
	defer table.Close()
	for i, to := range []netip.Addr{n.Internet.IPv4, n.Internet.IPv6} {
		as := seen(t, pod, "udp", to)
		seen(t, other, "udp", to)
		list := func(source netip.Addr) (found []string, entries []conntrack.Entry) {
			t.Helper()
			err := table.From(source, func(f *conntrack.Flow) {
				switch {
				case f.Original.Src.Addr() == source:
					found, entries = append(found, summary("open", f)), append(entries, f.Entry())
				case source.Is4() && filters:
					t.Errorf("the kernel sends %s, too", summary("open", f))
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			return found, entries
		}
		want := fmt.Sprintf("[open %d %s -> %s as %s]", unix.IPPROTO_UDP, pod.Addrs[i], netip.AddrPortFrom(to, netnstest.Port), as)
		found, entries := list(pod.Addrs[i])
		if fmt.Sprint(found) != want {
			t.Fatalf("%v, want %s", found, want)
		}
		for _, want := range []bool{true, false} {
			if deleted, err := table.Delete(entries[0]); deleted != want || err != nil {
				t.Errorf("deleted %t, %v; want %t", deleted, err, want)
			}
		}
		if found, _ := list(pod.Addrs[i]); len(found) > 0 {
			t.Errorf("%v is left", found)
		}
		if found, _ := list(other.Addrs[i]); len(found) != 1 {
			t.Errorf("%v is left of the other pod's", found)
		}
	}
}

// TestListenAll: a connection whose source stays is reported, too.
func TestListenAll(t *testing.T) {
	t.Parallel()
	n, pod := masquerading(t)
	events := on(t, n, conntrack.ListenAll)
	defer events.Close()
	for i, to := range []netip.Addr{n.Corp.IPv4, n.Internet.IPv6} {
		seen(t, pod, "udp", to)
		if kind, flow := next(t, events); kind != conntrack.Began || flow.Original.Src.Addr() != pod.Addrs[i] || flow.Original.Dst.Addr() != to {
			t.Errorf("%v %+v", kind, flow)
		}
	}
}
