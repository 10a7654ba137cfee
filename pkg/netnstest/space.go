package netnstest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/containernetworking/plugins/pkg/ns"
)

// runDir is where `ip netns` keeps its names.
const runDir = "/run/netns"

// prefix starts the name of every namespace that this package makes; the process id and a
// counter follow.
const prefix = "ipmasq-"

var counter atomic.Int64

// Space is a network namespace with a name, visible to `ip netns`.
type Space struct {
	Name string   // as `ip netns` shows it
	Path string   // what CNI_NETNS wants
	Env  []string // added to the environment of every command run here

	ns     ns.NetNS
	mounts *os.File // nil: the mounts of this process
}

// NewSpace makes an empty network namespace whose loopback is up.
func NewSpace(t TB, role string) *Space {
	t.Helper()
	sweep.Do(removeStale)
	name := fmt.Sprintf("%s%d-%d-%s", prefix, os.Getpid(), counter.Add(1), role)
	s := &Space{Name: name, Path: filepath.Join(runDir, name)}
	OnExit(t, s.Remove)
	must(t, "", "ip", "netns", "add", name)
	var err error
	if s.ns, err = ns.GetNS(s.Path); err != nil {
		t.Fatalf("open %s: %v", s.Path, err)
	}
	if err := s.prepare(); err != nil {
		t.Fatalf("prepare %s: %v", name, err)
	}
	s.ip(t, "link set lo up")
	return s
}

// prepare switches duplicate address detection off: IPv6 would have to wait a
// second or two for it in every test. Forwarded packets suffer most, for they
// wait for the link-local address.
func (s *Space) prepare() error {
	return s.Sysctl(
		"net/ipv4/conf/all/rp_filter=0",
		"net/ipv4/conf/default/rp_filter=0",
		"net/ipv6/conf/all/accept_dad=0",
		"net/ipv6/conf/default/accept_dad=0",
		"net/ipv6/conf/default/accept_ra=0",
	)
}

// Sysctl writes settings of the form "net/ipv4/ip_forward=1". A kernel without
// IPv6 has no IPv6 settings; these are left out.
func (s *Space) Sysctl(settings ...string) error {
	return s.Do(func() error {
		for _, setting := range settings {
			key, value, _ := strings.Cut(setting, "=")
			err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
			if os.IsNotExist(err) && strings.HasPrefix(key, "net/ipv6/") {
				continue
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Do runs fn on a thread that is in this network namespace (the mounts stay the
// caller's). Sockets that fn opens stay in it. Goroutines that fn starts do not.
func (s *Space) Do(fn func() error) error {
	return s.ns.Do(func(ns.NetNS) error { return fn() })
}

// DialContext is net.Dialer's, from inside; it fits http.Transport. The address
// must be numeric, since resolvers work on other threads.
func (s *Space) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := s.Do(func() error {
		var err error
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Remove ends what still runs in the namespace and deletes its name. It happens
// at the end of the test anyway; calling it earlier is how a pod dies.
func (s *Space) Remove() {
	if s.ns != nil {
		_ = s.ns.Close()
	}
	if s.mounts != nil {
		_ = s.mounts.Close()
	}
	removeNamed(s.Name)
}

// ip runs lines of `ip` commands in the namespace, in one process.
func (s *Space) ip(t TB, lines ...string) {
	t.Helper()
	must(t, strings.Join(lines, "\n")+"\n", "ip", "-n", s.Name, "-batch", "-")
}
