package runtime

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// port is where recorders listen and talkers send to.
const port = 7000

// packet is what a host outside saw of a talker.
type packet struct {
	at    time.Time
	from  netip.Addr
	pod   string
	role  string
	round int
}

// recorder is a host outside that remembers all it saw.
type recorder struct {
	mu      sync.Mutex
	packets []packet
}

func record(t *testing.T, host *netnstest.Host) *recorder {
	t.Helper()
	r := &recorder{}
	err := host.Do(func() error {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host.IPv4, port)))
		if err != nil {
			return err
		}
		netnstest.OnExit(t, func() { _ = conn.Close() })
		go r.listen(conn)
		return nil
	})
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	return r
}

func (r *recorder) listen(conn *net.UDPConn) {
	message := make([]byte, 256)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(message)
		if err != nil {
			return
		}
		p := packet{at: time.Now(), from: from.Addr().Unmap()}
		if _, err := fmt.Sscanf(string(message[:n]), "%s %s %d", &p.pod, &p.role, &p.round); err == nil {
			r.mu.Lock()
			r.packets = append(r.packets, p)
			r.mu.Unlock()
		}
	}
}

// of lists what came from a pod since a time.
func (r *recorder) of(pod string, since time.Time) (out []packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.packets {
		if p.pod == pod && !p.at.Before(since) {
			out = append(out, p)
		}
	}
	return out
}

// first waits until the very first packets of the pod's processes were seen.
func (r *recorder) first(t *testing.T, pod string, roles ...string) {
	t.Helper()
	for _, role := range roles {
		netnstest.Eventually(t, 5*time.Second, "first packet of "+pod+"'s "+role, func() bool {
			for _, p := range r.of(pod, time.Time{}) {
				if p.role == role && p.round == 0 {
					return true
				}
			}
			return false
		})
	}
}

// saw fails unless packets of the pod came since then, and all from one address.
func (r *recorder) saw(t *testing.T, pod string, since time.Time, want string) {
	t.Helper()
	netnstest.Eventually(t, 5*time.Second, "a packet of "+pod, func() bool { return len(r.of(pod, since)) > 0 })
	for _, p := range r.of(pod, since) {
		if p.from.String() != want {
			t.Errorf("%s's %s, round %d: came from %s, want %s", pod, p.role, p.round, p.from, want)
			return
		}
	}
}
