package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// What a new connection costs is taken on the thread that sends its first packet: from the pod's end of a veth pair the
// packet goes through routing, conntrack, NAT and out of the node in the same soft interrupt, before the call returns. The
// thread's processor clock counts exactly that, and not what others do meanwhile.

// The frame: Ethernet, IPv4, UDP, no payload.
const (
	etherSize, ipSize, udpSize = 14, 20, 8
	frameSize                  = etherSize + ipSize + udpSize
	maxBatch                   = 4000
)

// nodeMAC is set on the node's end of the veth pair; nobody has unknownMAC, so that the outside host drops what it gets
// before its own IP stack costs anything.
var (
	nodeMAC    = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	unknownMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// injector sends frames from a pod, each the first packet of another connection.
type injector struct {
	fd       int
	sources  int // numbers of pods
	sent     uint32
	random   *rand.Rand
	frames   []byte
	vectors  []unix.Iovec
	messages []message
}

// message is struct mmsghdr of sendmmsg(2).
type message struct {
	header unix.Msghdr
	sent   uint32
	_      [4]byte
}

// newInjector connects a pod to the node and opens a packet socket in it.
func newInjector(t testing.TB, node *netnstest.Node, pods int) *injector {
	t.Helper()
	pod := node.AddPod(t, "source", "10.244.0.2")
	node.Run(t, "ip", "link", "set", "pod1", "address", nodeMAC.String())
	node.Run(t, "ip", "neigh", "replace", node.Internet.IPv4.String(), "lladdr", unknownMAC.String(), "dev", "internet", "nud", "permanent")
	in := &injector{sources: pods, random: rand.New(rand.NewPCG(1, 2))}
	if err := pod.Do(in.open); err != nil {
		t.Fatalf("packet socket: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(in.fd) })
	in.allocate()
	return in
}

// open opens the socket in the namespace of the calling thread. It receives nothing: the protocol is 0.
func (in *injector) open() error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	if in.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	return unix.Bind(in.fd, &unix.SockaddrLinklayer{Ifindex: link.Index})
}

func (in *injector) allocate() {
	in.frames = make([]byte, maxBatch*frameSize)
	in.vectors, in.messages = make([]unix.Iovec, maxBatch), make([]message, maxBatch)
	for i := range maxBatch {
		in.vectors[i].Base = &in.frames[i*frameSize]
		in.vectors[i].SetLen(frameSize)
		in.messages[i].header.Iov = &in.vectors[i]
		in.messages[i].header.SetIovlen(1)
	}
}

// batch opens n connections and returns what one cost. The frames are made beforehand.
func (in *injector) batch(n int) (time.Duration, error) {
	for i := range n {
		in.write(in.frames[i*frameSize : (i+1)*frameSize])
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := threadTime()
	for done := 0; done < n; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(in.fd), uintptr(unsafe.Pointer(&in.messages[done])), uintptr(n-done), 0, 0, 0)
		if errno != 0 {
			return 0, fmt.Errorf("sendmmsg: %w", errno)
		}
		done += int(sent)
	}
	return (threadTime() - start) / time.Duration(n), nil
}

func threadTime() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now)
	return time.Duration(now.Nano())
}

// write makes a frame whose ports no other frame of this injector has, from any of the pods to anywhere in the world.
func (in *injector) write(frame []byte) {
	in.sent++
	copy(frame, nodeMAC)
	copy(frame[6:], unknownMAC)
	binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IP)
	target := address(uint32(world + in.random.IntN(65536)*block + 200))
	writeIP(frame[etherSize:], podAddress(in.random.IntN(in.sources)), target)
	udp := frame[etherSize+ipSize:]
	binary.BigEndian.PutUint16(udp, uint16(1024+in.sent%60000))
	binary.BigEndian.PutUint16(udp[2:], uint16(1024+in.sent/60000))
	binary.BigEndian.PutUint16(udp[4:], udpSize) // no checksum: IPv4 allows that
}

func writeIP(ip []byte, from, to netip.Addr) {
	clear(ip[:ipSize])
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], ipSize+udpSize)
	copy(ip[12:], from.AsSlice())
	copy(ip[16:], to.AsSlice())
	sum := uint32(0)
	for i := 0; i < ipSize; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum))
}
