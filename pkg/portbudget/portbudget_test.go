package portbudget_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/portbudget"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

func TestUsable(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                       "1024-65535",
		"40000-40019":            "40000-40019",
		"5-9,1-5,20-30,10-12":    "1-12,20-30",
		"1024-29999,32768-65535": "1024-29999,32768-65535",
		"1-65535,7-8":            "1-65535",
	} {
		ranges, err := policy.ParsePortRanges(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := portbudget.Usable(ranges).String(); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestNext: a sample is 0.5 % of a core at most.
func TestNext(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]time.Duration{0: 15 * time.Second, 10 * time.Millisecond: 15 * time.Second, time.Second: 220 * time.Second} {
		if got := (portbudget.Report{Took: took}).Next(); got != want {
			t.Errorf("%v: %v, want %v", took, got, want)
		}
		for age, fresh := range map[time.Duration]bool{0: true, want + time.Second: false} {
			if got := (portbudget.Report{Took: took, Time: time.Now().Add(-age)}).Fresh(); got != fresh {
				t.Errorf("%v, taken %v ago: fresh is %v", took, age, got)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	of := func(taken int) portbudget.Report {
		return portbudget.Report{Destinations: []portbudget.Destination{{
			Proto: "tcp", Translated: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("2001:db8::2"), DstPort: 443,
			Taken: taken, Usable: 100, Share: float64(taken) / 100,
			Pods: []portbudget.Pod{{Pod: attachment.Pod{Namespace: "shop", Name: "cart-0"}, Src: netip.MustParseAddr("10.244.0.5"), Taken: taken}},
		}}}
	}
	for taken, want := range map[int]string{
		79: "ok: no destination takes more than 79 % of its source ports",
		80: "warn: 80 of 100 source ports (80 %) are taken towards tcp [2001:db8::2]:443 from 192.0.2.1; most of them by shop/cart-0 at 10.244.0.5 (80)",
		95: "fail: 95 of 100 source ports (95 %) are taken towards tcp [2001:db8::2]:443 from 192.0.2.1; new connections there fail or are about to; most of them by shop/cart-0 at 10.244.0.5 (95)",
	} {
		status, message, fix := portbudget.Check(of(taken))
		if got := status + ": " + message; got != want || (fix == "") != (status == "ok") {
			t.Errorf("%s (%s), want %s", got, fix, want)
		}
	}
	if status, message, fix := portbudget.Check(portbudget.Report{}); status != "ok" || message == "" || fix != "" {
		t.Errorf("%s %s %s", status, message, fix)
	}
}

// connections opens n datagram connections that exist side by side.
func connections(t *testing.T, pod *netnstest.Pod, to netip.Addr, n int) {
	t.Helper()
	for range n {
		conn, err := pod.DialContext(context.Background(), "udp", net.JoinHostPort(to.String(), "7777"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(netnstest.Limit(2 * time.Second)))
		if _, err := conn.Read(make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSample: two pods, two destinations, both families, with real connections; what keeps its address takes no port.
func TestSample(t *testing.T) {
	t.Parallel()
	netnstest.Require(t, "nft")
	n := netnstest.NewNode(t)
	a, b := n.AddPod(t, "a", "10.244.0.5", "fd00:244::5"), n.AddPod(t, "b", "10.244.0.6")
	n.Run(t, "nft", "table inet x { chain c { type nat hook postrouting priority 100; oifname internet meta l4proto { tcp, udp } masquerade to :40000-40009; }; }")
	connections(t, a, n.Internet.IPv4, 3)
	connections(t, b, n.Internet.IPv4, 5)
	connections(t, a, n.Internet.IPv6, 2)
	connections(t, a, n.Corp.IPv4, 4)
	var report portbudget.Report
	err := n.Do(func() error {
		s, err := portbudget.NewSampler()
		if err != nil {
			return err
		}
		defer s.Close()
		for range 2 { // the second sample counts nothing of the first
			if report, err = s.Sample(policy.PortRanges{{First: 40000, Last: 40009}}, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []portbudget.Destination{
		{
			Proto: "udp", Translated: netip.MustParseAddr("192.0.2.1"), Dst: n.Internet.IPv4, DstPort: 7777, Taken: 8, Usable: 10, Share: 0.8,
			Pods: []portbudget.Pod{{Src: b.Addrs[0], Taken: 5}, {Src: a.Addrs[0], Taken: 3}},
		},
		{
			Proto: "udp", Translated: netip.MustParseAddr("2001:db8::1"), Dst: n.Internet.IPv6, DstPort: 7777, Taken: 2, Usable: 10, Share: 0.2,
			Pods: []portbudget.Pod{{Src: a.Addrs[1], Taken: 2}},
		},
	}
	equal := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(want, report.Destinations, equal); diff != "" {
		t.Error(diff)
	}
	if report.Highest != 0.8 || report.Above != [3]int{1, 0, 0} || report.Connections != 10 {
		t.Errorf("%+v", report)
	}
}

// TestPool: connections from the addresses of a pool share a budget, which is the sum; a pool is that of a destination.
func TestPool(t *testing.T) {
	t.Parallel()
	netnstest.Require(t, "nft", "ip")
	n := netnstest.NewNode(t)
	a, b, c := n.AddPod(t, "a", "10.244.0.5"), n.AddPod(t, "b", "10.244.0.6"), n.AddPod(t, "c", "10.244.0.7")
	n.Run(t, "ip", "addr", "add", "192.0.2.9/24", "dev", "internet")
	n.Run(t, "nft", `table inet x { chain c { type nat hook postrouting priority 100;
		oifname corp meta l4proto udp masquerade to :40000-40009
		ip saddr 10.244.0.5 meta l4proto udp snat ip to 192.0.2.1:40000-40009
		ip saddr 10.244.0.6 meta l4proto udp snat ip to 192.0.2.9:40000-40009
		ip saddr 10.244.0.7 meta l4proto udp snat ip to 192.0.2.1:40000-40009; }; }`)
	connections(t, a, n.Internet.IPv4, 3)
	connections(t, b, n.Internet.IPv4, 5)
	connections(t, c, n.Internet.IPv4, 1)
	connections(t, a, n.Corp.IPv4, 2)
	pool := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9")}
	for _, sample := range []struct {
		pools portbudget.Pools
		want  string
	}{
		{nil, "udp 192.0.2.2:7777 from 192.0.2.9: 5 of 10; udp 192.0.2.2:7777 from 192.0.2.1: 4 of 10; udp 10.99.0.2:7777 from 10.99.0.1: 2 of 10; "},
		{
			func(to netip.Addr) []netip.Addr {
				if to == n.Internet.IPv4 {
					return pool
				}
				return nil
			},
			"udp 192.0.2.2:7777 from 192.0.2.1, 192.0.2.9: 9 of 20, 5 by 10.244.0.6; udp 10.99.0.2:7777 from 10.99.0.1: 2 of 10; ",
		},
		{func(netip.Addr) []netip.Addr { return pool[1:] }, "udp 192.0.2.2:7777 from 192.0.2.9: 5 of 10; udp 192.0.2.2:7777 from 192.0.2.1: 4 of 10; udp 10.99.0.2:7777 from 10.99.0.1: 2 of 10; "},
	} {
		got := ""
		err := n.Do(func() error {
			s, err := portbudget.NewSampler()
			if err != nil {
				return err
			}
			defer s.Close()
			for range 2 { // the second sample joins nothing of the first
				report, err := s.Sample(policy.PortRanges{{First: 40000, Last: 40009}}, sample.pools)
				if err != nil {
					return err
				}
				got = ""
				for _, d := range report.Destinations {
					got += fmt.Sprintf("%s: %d of %d", d, d.Taken, d.Usable)
					if len(d.Pool) > 0 {
						got += fmt.Sprintf(", %d by %s", d.Pods[0].Taken, d.Pods[0].Src)
					}
					got += "; "
				}
			}
			return nil
		})
		if err != nil || got != sample.want {
			t.Errorf("got  %s %v\nwant %s", got, err, sample.want)
		}
	}
}
