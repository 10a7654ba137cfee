package nftables

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// streamLong is the environment variable that asks for half a million flows and fifty changes at every size.
const streamLong = "IPMASQ_STREAM_LONG"

// ways are the ways to change destinations that are right on this kernel.
func ways() []changes {
	if changesOf(kernelRelease()) == SecondSet {
		return []changes{SecondSet}
	}
	return []changes{InPlace, SecondSet}
}

// TestStreamDuringChanges sends new flows to destinations whose verdict stays the same, while prefixes beside and around them
// come and go. No flow may be seen from the wrong address.
func TestStreamDuringChanges(t *testing.T) {
	netnstest.Require(t)
	for _, way := range ways() {
		t.Run(string(way), func(t *testing.T) { streamDuringChanges(t, way) })
	}
}

func streamDuringChanges(t *testing.T, way changes) {
	sizes, flows, changes := []int{64, 1000, 10_000}, int64(60_000), 20
	if os.Getenv(streamLong) != "" {
		flows, changes = 500_000, 50
	}
	for _, size := range sizes {
		t.Run(fmt.Sprintf("%d prefixes", size), func(t *testing.T) {
			versions := streamVersions(size, 8)
			s := newStream(t, way)
			s.apply(t, versions[0])
			s.watch(probes(versions, 400, policy.Keep), probes(versions, 400, policy.Masquerade))
			applied := 0
			// A machine with other work makes thousands of changes before the flows are enough: time ends this, no number of them.
			end := time.Now().Add(netnstest.Limit(time.Minute))
			for i := 1; applied < changes || s.seen.Load() < flows; i++ {
				if s.apply(t, versions[i%len(versions)]) {
					applied++
				}
				if time.Now().After(end) {
					t.Fatalf("%d changes, and only %d flows", applied, s.seen.Load())
				}
			}
			s.finish(t, applied)
		})
	}
}

// TestStreamDuringInstallation looks at destinations that are kept: before there are rules and after. In between an interval
// set that is put to use too early would have them masqueraded.
func TestStreamDuringInstallation(t *testing.T) {
	netnstest.Require(t)
	rounds, flows := 10, int64(60_000)
	if os.Getenv(streamLong) != "" {
		rounds, flows = 50, 500_000
	}
	for _, size := range []int{64, 1000, 10_000} {
		t.Run(fmt.Sprintf("%d prefixes", size), func(t *testing.T) {
			versions := streamVersions(size, 1)
			s := newStream(t, ways()[0])
			s.watch(probes(versions, 800, policy.Keep), nil)
			for i := 0; i < rounds || s.seen.Load() < flows; i++ {
				s.apply(t, versions[0])
				s.node(t, func(ctx context.Context) error { return New().Remove(ctx, policy.DefaultSettings(), policy.IPv4) })
			}
			s.finish(t, rounds)
		})
	}
}

// streamVersions are lists of destinations in 20.0.0.0/8 that differ by a tenth of their prefixes, in ways that split, merge,
// shrink and grow ranges.
func streamVersions(size, versions int) [][]policy.Destination {
	random := rand.New(rand.NewPCG(uint64(size), 1))
	base := make([]netip.Prefix, size)
	for i := range base {
		addr := netip.AddrFrom4([4]byte{20, byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())})
		base[i] = netip.PrefixFrom(addr, 18+random.IntN(15)).Masked()
	}
	all := make([][]policy.Destination, versions)
	for v := range all {
		for _, p := range base {
			all[v] = append(all[v], vary(random, p)...)
		}
	}
	return all
}

func vary(random *rand.Rand, p netip.Prefix) []policy.Destination {
	keep := policy.Destination{Prefix: p, Verdict: policy.Keep}
	half := netip.PrefixFrom(p.Addr(), min(p.Bits()+1, 32))
	hole := netip.PrefixFrom(last(half), min(p.Bits()+4, 32)).Masked()
	switch random.IntN(50) {
	case 0:
		return nil
	case 1:
		return []policy.Destination{{Prefix: half, Verdict: policy.Keep}}
	case 2:
		return []policy.Destination{keep, {Prefix: hole, Verdict: policy.Masquerade}}
	case 3:
		return []policy.Destination{{Prefix: netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked(), Verdict: policy.Keep}}
	}
	return []policy.Destination{keep}
}

// probes are addresses that have the verdict in every version: the edges of ranges before all, where a lookup goes wrong first.
func probes(versions [][]policy.Destination, n int, verdict policy.Verdict) []netip.Addr {
	random := rand.New(rand.NewPCG(uint64(n), 2))
	folded := make([][]member, len(versions))
	var candidates []netip.Addr
	for i, v := range versions {
		folded[i] = fold(policy.IPv4, v, true, -1, nil).keep
		for _, m := range folded[i] {
			candidates = append(candidates, m.first.Prev(), m.first, m.last, m.last.Next())
		}
	}
	candidates = slices.DeleteFunc(candidates, func(a netip.Addr) bool {
		return a.As4()[0] != 20 || slices.ContainsFunc(folded, func(members []member) bool {
			i, found := slices.BinarySearchFunc(members, a, func(m member, a netip.Addr) int { return m.last.Compare(a) })
			kept := found || i < len(members) && members[i].first.Compare(a) <= 0
			return kept != (verdict == policy.Keep)
		})
	})
	random.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
	return candidates[:min(n, len(candidates))]
}

// stream is a pod that sends without end, and a host that looks at every packet.
type stream struct {
	backend     *Backend
	host        *netnstest.Node
	pod         *netnstest.Pod
	state       func([]policy.Destination) ruleset.State
	stop        chan struct{}
	done        chan error
	want        map[[4]byte][4]byte // source by destination
	seen, wrong atomic.Int64
	example     atomic.Pointer[string]
}

func newStream(t *testing.T, way changes) *stream {
	s := &stream{backend: NewWith(way), host: netnstest.NewNode(t), stop: make(chan struct{}), done: make(chan error, 2), want: map[[4]byte][4]byte{}}
	s.pod = s.host.AddPod(t, "pod", "10.244.0.5")
	// The host has no such address and does not forward: it drops what it has seen.
	s.host.Run(t, "ip", "route", "add", "20.0.0.0/8", "via", s.host.Corp.IPv4.String())
	a := attachment.Attachment{Owner: attachment.Owner{Network: "net", ContainerID: "pod", IfName: "eth0"}, Addresses: s.pod.Addrs}
	s.state = func(d []policy.Destination) ruleset.State {
		return ruleset.State{Settings: policy.DefaultSettings(), Tables: []ruleset.Table{
			{Family: policy.IPv4, Destinations: d, Pods: ruleset.Pods(a)},
		}}
	}
	return s
}

func (s *stream) node(t *testing.T, call func(context.Context) error) {
	t.Helper()
	if err := s.host.Do(func() error { return call(context.Background()) }); err != nil {
		t.Fatal(err)
	}
}

func (s *stream) apply(t *testing.T, destinations []policy.Destination) (changed bool) {
	t.Helper()
	s.node(t, func(ctx context.Context) error {
		got, err := s.backend.Observe(ctx, policy.DefaultSettings(), policy.IPv4)
		if err == nil {
			changed, err = s.backend.Apply(ctx, got, s.state(destinations))
		}
		return err
	})
	return changed
}

// watch starts sending and looking, and waits for the first packets.
func (s *stream) watch(kept, masqueraded []netip.Addr) {
	for _, a := range kept {
		s.want[a.As4()] = s.pod.Addrs[0].As4()
	}
	for _, a := range masqueraded {
		s.want[a.As4()] = [4]byte{10, 99, 0, 1}
	}
	s.watchAll(append(kept, masqueraded...))
}

// watchAll sends to addresses that s.want has.
func (s *stream) watchAll(to []netip.Addr) {
	started := make(chan struct{})
	go func() { s.done <- s.host.Corp.Do(func() error { return s.look(started) }) }()
	<-started
	go func() { s.done <- s.pod.Do(func() error { return s.send(to) }) }()
	for s.seen.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
}

// send makes every packet a new flow: another destination, and another port at the next turn.
func (s *stream) send(to []netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for i := 0; ; i++ {
		select {
		case <-s.stop:
			return nil
		default:
		}
		target := &unix.SockaddrInet4{Addr: to[i%len(to)].As4(), Port: 1024 + i/len(to)%60_000}
		_ = unix.Sendto(fd, []byte("flow"), 0, target)
	}
}

// look reads packets off the wire until the stream ends.
func (s *stream) look(started chan<- struct{}) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(bits16(unix.ETH_P_IP)))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	timeout := unix.NsecToTimeval(int64(100 * time.Millisecond))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	close(started)
	packet := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(fd, packet, 0)
		if err == nil && n >= 20 {
			s.check([4]byte(packet[12:16]), [4]byte(packet[16:20]))
			continue
		}
		select {
		case <-s.stop:
			return nil
		default:
		}
	}
}

func (s *stream) check(source, destination [4]byte) {
	want, ours := s.want[destination]
	if !ours {
		return
	}
	s.seen.Add(1)
	if source != want {
		s.wrong.Add(1)
		text := fmt.Sprintf("%v seen from %v, want %v", netip.AddrFrom4(destination), netip.AddrFrom4(source), netip.AddrFrom4(want))
		s.example.Store(&text)
	}
}

func (s *stream) finish(t *testing.T, changes int) {
	t.Helper()
	close(s.stop)
	for range 2 {
		if err := <-s.done; err != nil {
			t.Error(err)
		}
	}
	if s.wrong.Load() > 0 {
		t.Errorf("%d of %d flows wrong during %d changes, such as %s", s.wrong.Load(), s.seen.Load(), changes, *s.example.Load())
	}
	t.Logf("%d flows during %d changes", s.seen.Load(), changes)
}

// bits16 swaps a number into network order.
func bits16(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// TestStreamWhileCountingChanges goes to and fro between the sets of a release that does not count and those of this one, with the same
// destinations and with others.
func TestStreamWhileCountingChanges(t *testing.T) {
	netnstest.Require(t)
	before(t, 7, "does not count elements")
	for _, way := range ways() {
		for _, size := range []int{64, 900} {
			t.Run(fmt.Sprintf("%s, %d prefixes", way, size), func(t *testing.T) {
				versions := streamVersions(size, 8)
				s := newStream(t, way)
				s.apply(t, versions[0])
				s.watch(probes(versions, 400, policy.Keep), probes(versions, 400, policy.Masquerade))
				applied := 0
				for i := 1; applied < 20 || s.seen.Load() < 60_000; i++ {
					s.backend.limit = []int{-1, countLimit}[i%2]
					if s.apply(t, versions[i/3%len(versions)]) {
						applied++
					}
				}
				s.finish(t, applied)
			})
		}
	}
}
