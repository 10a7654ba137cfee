package agent_test

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestChosenAddresses: two pods have one address each of a pool. Who and the translation log tell whose a connection is, and the
// budget of source ports is that of both addresses.
func TestChosenAddresses(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "ip", "conntrack")
		even, odd := r.AddPod(t, "even", "10.244.0.4"), r.AddPod(t, "odd", "10.244.0.5")
		r.record(t, "even", even.Addrs...)
		r.record(t, "odd", odd.Addrs...)
		for _, address := range []string{"192.0.2.130/24", "192.0.2.131/24"} {
			r.Run(t, "ip", "addr", "add", address, "dev", "internet")
		}
		r.Write(t, "toPorts: 40000-40009\nrandomFully: false\negress: [{destinations: [192.0.2.2/32], sourceAddresses: [192.0.2.128/28]}]\n")
		const metrics = "127.0.0.1:10279"
		log := filepath.Join(t.TempDir(), "translations")
		r.Start(t, netnstest.Cmd{Args: r.Command("run", "--metrics-bind-address", metrics, "--translation-log", log)})
		netnstest.Eventually(t, 10*time.Second, "the agent is ready", func() bool { return strings.Contains(r.page(metrics), "ip_masq_agent_ready 1\n") })
		to := netip.AddrPortFrom(r.Internet.IPv4, netnstest.Port).String()
		asked := map[string]string{}
		for pod, want := range map[*netnstest.Pod]string{even: "192.0.2.130", odd: "192.0.2.131"} {
			as, err := pod.Seen("udp", r.Internet.IPv4)
			if err != nil || as.Addr().String() != want || as.Port() < 40000 || as.Port() > 40009 {
				t.Fatalf("%s is seen as %v, %v", pod.Addrs[0], as, err)
			}
			name := map[*netnstest.Pod]string{even: "even", odd: "odd"}[pod]
			asked[as.String()] = "shop/" + name + " c-" + name + " udp " + to
			r.wantAnswer(t, "open", asked[as.String()]+" open from conntrack", as.String())
		}
		r.Run(t, "conntrack", "-F")
		for translated, pod := range asked {
			r.wantAnswer(t, "over", pod+" over from log", translated)
		}
		listener := r.server(t)
		for pod, number := range map[*netnstest.Pod]int{even: 10, odd: 6} {
			for range number {
				conn, err := pod.DialContext(t.Context(), "tcp", listener)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
			}
		}
		var got portsOf
		netnstest.Eventually(t, 10*time.Second, "the connections are counted", func() bool { // a sample is a second old at most
			err := json.Unmarshal([]byte(r.Agent(t, "status", "--output", "json").Stdout), &got)
			return err == nil && got.Ports != nil && len(got.Ports.Destinations) > 0 && got.Ports.Destinations[0].Taken == 16
		})
		if d := got.Ports.Destinations[0]; d.Usable != 20 || got.Ports.Highest != 0.8 {
			t.Errorf("%+v", got.Ports)
		}
		text := r.Agent(t, "status").Stdout
		for _, want := range []string{
			"80 %  16 of 20  tcp " + listener + " from 192.0.2.130, 192.0.2.131", "shop/even at 10.244.0.4 (10)", "shop/odd at 10.244.0.5 (6)",
			"translate   192.0.2.2/32 (group 1)", "group 1: 192.0.2.130, 192.0.2.131",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("status does not say %q:\n%s", want, text)
			}
		}
	})
}
