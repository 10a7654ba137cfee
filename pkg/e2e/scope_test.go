package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// source is one whose new connections are watched: a pod, something that is no pod's, or the node itself.
type source struct {
	name    string
	in      *netnstest.Space
	address netip.Addr // that it sends from
	to      netip.Addr
	port    int // of the last connection

	mu   sync.Mutex
	seen []string // each time another address than before
}

// ask opens one connection and returns who the other end says it is from. Each is from another port: one that was used before the policy
// changed may still be in the connection table, with the address that it got then.
func (s *source) ask() string {
	s.port++
	var from string
	err := s.in.Do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.address, uint16(s.port)))}
		conn, err := dialer.DialContext(ctx, "udp", netip.AddrPortFrom(s.to, netnstest.Port).String())
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := conn.Write([]byte("who am I?")); err != nil {
			return err
		}
		answer := make([]byte, 128)
		n, err := conn.Read(answer)
		from, _, _ = strings.Cut(string(answer[:n]), ":")
		return err
	})
	if err != nil {
		return err.Error()
	}
	return from
}

// watch opens one connection after another until the returned function is called.
func (s *source) watch() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(2 * time.Millisecond):
			}
			got := s.ask()
			s.mu.Lock()
			if len(s.seen) == 0 || s.seen[len(s.seen)-1] != got {
				s.seen = append(s.seen, got)
			}
			s.mu.Unlock()
		}
	}()
	return func() { close(done); <-ended }
}

func (s *source) now() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == 0 {
		return ""
	}
	return s.seen[len(s.seen)-1]
}

// gateway is the node's address towards the pods, which it may send from to others, too.
const gateway = "10.244.0.1"

// TestScopeChanges changes sources and nodeTraffic under a daemon, from each value to each other, while a pod, one that opted out, a machine
// that is no pod and the node itself open connections. Each is seen as the policy says, and where both policies say the same no
// connection in between is seen otherwise.
func TestScopeChanges(t *testing.T) {
	const pods, nodes, all = "sources: pods\n", "sources: pods\nnodeTraffic: true\n", "sources: all\n"
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, pods+never)
		in, out, machine := r.attached(t, "in"), r.newPod(t, "out"), r.newPod(t, "machine")
		if got := r.plugin(t, "ADD", out, `"masquerade": false`); got.Code != 0 {
			t.Fatalf("ADD: %s", got.Stdout)
		}
		agent := r.startReady(t)
		var sources []*source
		for name, p := range map[string]*pod{"the pod": in, "the pod that opted out": out, "the machine": machine} {
			sources = append(sources, &source{name: name, in: p.Space, address: p.Addrs[0], to: r.Internet.IPv4, port: 20000})
		}
		sources = append(sources, &source{name: "the node", in: r.Space, address: netip.MustParseAddr(gateway), to: r.Internet.IPv4, port: 20000})
		keeps := map[string][]string{pods: {"the pod that opted out", "the machine", "the node"}, nodes: {"the pod that opted out"}, all: nil}
		for _, s := range sources {
			defer s.watch()()
		}
		want := make([][]string, len(sources))
		for step, file := range []string{pods, nodes, all, pods, all, nodes, pods} {
			if step > 0 {
				r.Write(t, file+never)
			}
			for i, s := range sources {
				expected := nodeAddress
				if slices.Contains(keeps[file], s.name) {
					expected = s.address.String()
				}
				r.eventually(t, agent, fmt.Sprintf("step %d, %q: %s seen as %s and not %s", step, file, s.name, expected, s.now()), func() bool { return s.now() == expected })
				if last := len(want[i]) - 1; last < 0 || want[i][last] != expected {
					want[i] = append(want[i], expected)
				}
			}
			time.Sleep(100 * time.Millisecond) // some more connections under this one
		}
		for i, s := range sources {
			s.mu.Lock()
			if !slices.Equal(s.seen, want[i]) {
				t.Errorf("%s was seen as %v, one after the other; want %v", s.name, s.seen, want[i])
			}
			s.mu.Unlock()
		}
	})
}

// TestNodeTrafficWithoutAnAgent: the plugin alone keeps the address of a pod that opts out from its first packet on, and gives it back to
// the node when the pod goes: a machine that takes it over is masqueraded.
func TestNodeTrafficWithoutAnAgent(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Write(t, "nodeTraffic: true\n"+never)
		r.Sync(t)
		in, out, machine := r.attached(t, "in"), r.newPod(t, "out"), r.newPod(t, "machine")
		if got := r.plugin(t, "ADD", out, `"masquerade": false`); got.Code != 0 {
			t.Fatalf("ADD: %s", got.Stdout)
		}
		for _, to := range []struct {
			p    *pod
			want string
		}{{out, out.Addrs[0].String()}, {in, nodeAddress}, {machine, nodeAddress}} {
			r.wantSeen(t, to.p, to.want)
			if got := seenAs(to.p.Pod, r.Corp.IPv4); got != to.p.Addrs[0].String() {
				t.Errorf("%s is seen as %s by a destination that keeps", to.p.ContainerID, got)
			}
		}
		for _, verb := range []string{"CHECK", "DEL", "DEL"} {
			if got := r.plugin(t, verb, out, `"masquerade": false`); got.Code != 0 {
				t.Errorf("%s: %s", verb, got.Stdout)
			}
		}
		r.wantSeen(t, out, nodeAddress)
	})
}
