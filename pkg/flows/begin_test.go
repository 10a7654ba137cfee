package flows

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestStartedDuringChange: the policy keeps all addresses, before and after, and a rule that stands for a wrong verdict
// masquerades what pods send. A connection that began while the rules changed is ended, an older one is other software's doing.
func TestStartedDuringChange(t *testing.T) {
	netnstest.Require(t, "nft", "conntrack")
	for _, mode := range []Mode{Changed, UDP, None} {
		t.Run(string(mode), func(t *testing.T) {
			n := netnstest.NewNode(t)
			pod := n.AddPod(t, "pod", "10.244.0.5", "fd00:244::5")
			n.Run(t, "nft", "table inet x { chain c { type nat hook postrouting priority 90; ip saddr 10.244.0.5 masquerade; ip6 saddr fd00:244::5 masquerade; }; }")
			s := policy.DefaultSettings()
			s.IPv6 = true
			p := policyOf(s, "0.0.0.0/0", "::/0")
			seen := func(network string) {
				for _, to := range []netip.Addr{n.Internet.IPv4, n.Internet.IPv6} {
					if got, err := pod.Seen(network, to); err != nil || got.Addr() == pod.Addrs[0] || got.Addr() == pod.Addrs[1] {
						t.Fatalf("%v, %v", got, err)
					}
				}
			}
			tracked := func(protocol string) (count int) {
				for _, family := range []string{"ipv4", "ipv6"} {
					count += strings.Count(n.Run(t, "conntrack", "-L", "-f", family, "-p", protocol), "sport=") / 2
				}
				return count
			}
			seen("udp")
			seen("tcp")
			var c *Change
			_ = n.Do(func() error { c = Begin(mode); return nil })
			seen("udp")
			seen("tcp")
			var ended int
			err := n.Do(func() (err error) {
				ended, err = c.End(context.Background(), p.Decider(nil), p.Decider(nil), of(pod))
				return err
			})
			want := map[Mode][3]int{Changed: {4, 2, 2}, UDP: {2, 2, 4}, None: {0, 4, 4}}[mode]
			if got := [3]int{ended, tracked("udp"), tracked("tcp")}; err != nil || got != want {
				t.Errorf("ended, left of UDP, left of TCP: %v, want %v (%v)", got, want, err)
			}
		})
	}
}

// TestEndBesideTraffic: on a busy node connections begin all the time, and ending is not put off for them.
func TestEndBesideTraffic(t *testing.T) {
	n := netnstest.NewNode(t)
	pod := n.AddPod(t, "pod", "10.244.0.5")
	n.Run(t, "nft", "table inet x { chain c { type nat hook postrouting priority 90; ip saddr 10.244.0.5 masquerade; }; }")
	p := policyOf(policy.DefaultSettings(), "0.0.0.0/0")
	var c *Change
	_ = n.Do(func() error { c = Begin(Changed); return nil })
	began, stop, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		_ = pod.Do(func() error {
			for i := 0; i < 200_000; i++ { // bounded, should the test hang
				select {
				case <-stop:
					return nil
				default:
				}
				if conn, err := net.Dial("udp", netip.AddrPortFrom(n.Internet.IPv4, 9).String()); err == nil {
					_, _ = conn.Write([]byte("x"))
					_ = conn.Close()
				}
				if i == 10 {
					close(began)
				}
				time.Sleep(time.Millisecond)
			}
			return nil
		})
	}()
	<-began
	ended := make(chan int, 1)
	go func() {
		_ = n.Do(func() error {
			count, _ := c.End(context.Background(), p.Decider(nil), p.Decider(nil), of(pod))
			ended <- count
			return nil
		})
	}()
	select {
	case count := <-ended:
		if count == 0 {
			t.Error("none of the connections that began was ended")
		}
	case <-time.After(netnstest.Limit(5 * time.Second)):
		t.Error("does not end while connections begin")
	}
	close(stop)
	<-stopped
}

// of are a pod's addresses, for which nothing was chosen.
func of(pod *netnstest.Pod) map[netip.Addr]policy.Packet {
	sources := map[netip.Addr]policy.Packet{}
	for _, address := range pod.Addrs {
		sources[address] = policy.Packet{Attached: true}
	}
	return sources
}

// TestEndsWithItsContext: an agent that is to end does not go on to the end of the table.
func TestEndsWithItsContext(t *testing.T) {
	netnstest.Require(t, "nft")
	n := netnstest.NewNode(t)
	pod := n.AddPod(t, "pod", "10.244.0.5")
	n.Run(t, "nft", "table inet x { chain c { type nat hook postrouting priority 90; ip saddr 10.244.0.5 ip daddr 10.0.0.0/8 masquerade; }; }") // without one, nothing is tracked
	if _, err := pod.Seen("udp", n.Internet.IPv4); err != nil {
		t.Fatal(err)
	}
	p := policyOf(policy.DefaultSettings())
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for want, ctx := range []context.Context{over, context.Background()} {
		ended := -1
		_ = n.Do(func() (err error) {
			ended, err = Begin(Changed).End(ctx, p.Decider(nil), p.Decider(nil), of(pod))
			return err
		})
		if ended != want {
			t.Errorf("%d connections ended, want %d", ended, want)
		}
	}
}

// TestOutput: a connection that leaves through an interface which the policy leaves out may keep its address.
func TestOutput(t *testing.T) {
	netnstest.Require(t, "nft", "conntrack")
	n := netnstest.NewNode(t)
	pod := n.AddPod(t, "pod", "10.244.0.5", "fd00:244::5")
	n.Run(t, "nft", "table inet x { chain c { type nat hook postrouting priority 90; oifname none masquerade; }; }")
	for _, to := range []netip.Addr{n.Internet.IPv4, n.Internet.IPv6, n.Corp.IPv4, n.Corp.IPv6} {
		if _, err := pod.Seen("udp", to); err != nil {
			t.Fatal(err)
		}
	}
	s := policy.DefaultSettings()
	s.IPv6 = true
	p := policyOf(s)
	p.OutputInterfaces = policy.Interfaces{"internet"}
	var ended int
	err := n.Do(func() (err error) {
		ended, err = Begin(Changed).End(context.Background(), p.Decider(nil), p.Decider(nil), of(pod))
		return err
	})
	left := n.Run(t, "conntrack", "-L", "-f", "ipv4", "-p", "udp") + n.Run(t, "conntrack", "-L", "-f", "ipv6", "-p", "udp")
	if err != nil || ended != 2 || !strings.Contains(left, "dst="+n.Corp.IPv4.String()) || strings.Contains(left, "dst="+n.Internet.IPv4.String()) {
		t.Errorf("%d connections ended, %v; left:\n%s", ended, err, left)
	}
}
