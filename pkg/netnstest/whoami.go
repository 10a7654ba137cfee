package netnstest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Port is where the "who am I" servers listen, UDP and TCP.
const Port = 7777

// patience is how long a client waits for an answer, as patient counts.
const patience = 2 * time.Second

// Serve answers every datagram and every connection to addr with the address
// and port that it came from, until the test ends. One socket per address, not
// one for all: an answer has to come from the address that was asked.
func (s *Space) Serve(t TB, addr netip.Addr) {
	t.Helper()
	local := netip.AddrPortFrom(addr, Port)
	err := s.Do(func() error {
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(local))
		if err != nil {
			return err
		}
		OnExit(t, func() { _ = udp.Close() })
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(local))
		if err != nil {
			return err
		}
		OnExit(t, func() { _ = tcp.Close() })
		go answerUDP(udp)
		go answerTCP(tcp)
		return nil
	})
	if err != nil {
		t.Fatalf("serve in %s: %v", s.Name, err)
	}
}

func answerUDP(conn *net.UDPConn) {
	question := make([]byte, 64)
	for {
		_, from, err := conn.ReadFromUDPAddrPort(question)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = conn.WriteToUDPAddrPort([]byte(from.String()), from)
		}
	}
}

func answerTCP(listener *net.TCPListener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte(conn.RemoteAddr().String()))
		_ = conn.Close()
	}
}

// Seen sends one datagram ("udp") or opens one connection ("tcp") to the "who
// am I" server at addr and returns the address and port that the server saw.
// No answer within two seconds is an error.
func (s *Space) Seen(network string, addr netip.Addr) (netip.AddrPort, error) {
	return s.SeenWithin(patience, network, addr)
}

// SeenWithin is Seen with another limit, for tests that load the machine themselves.
func (s *Space) SeenWithin(limit time.Duration, network string, addr netip.Addr) (netip.AddrPort, error) {
	ctx, cancel := patient(Limit(limit))
	defer cancel()
	conn, err := s.dialAnew(ctx, network, netip.AddrPortFrom(addr, Port).String())
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%s to %s: not within %v: %w", network, addr, Limit(limit), err)
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	return ask(conn)
}

// patient returns a context that ends after a time in which this process ran. Client and server are goroutines of one process, and a
// busy machine lets it stand still for seconds: a deadline would then be over before the server could answer.
func patient(limit time.Duration) (context.Context, context.CancelFunc) {
	const parts = 20
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		tick := time.NewTicker(limit / parts) // after a standstill it has one tick, not all that it missed
		defer tick.Stop()
		for range parts {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return ctx, cancel
}

// usedPorts counts the source ports that datagrams had.
var usedPorts atomic.Uint32

// The ports that datagrams take their source ports from, the usual ones of Linux.
const (
	firstPort   = 32768
	sourcePorts = 28000
)

// dialAnew is DialContext from a port that no datagram of this process had lately. The kernel draws ports at random, and now and then
// one whose former connection it still tracks, with the address that some other rules gave it.
func (s *Space) dialAnew(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if !strings.HasPrefix(network, "udp") {
		return s.DialContext(ctx, network, address)
	}
	err = s.Do(func() error {
		for {
			from := &net.UDPAddr{Port: firstPort + int(usedPorts.Add(1)%sourcePorts)}
			conn, err = (&net.Dialer{LocalAddr: from}).DialContext(ctx, network, address)
			if !errors.Is(err, syscall.EADDRINUSE) {
				return err
			}
		}
	})
	return conn, err
}

func ask(conn net.Conn) (netip.AddrPort, error) {
	if strings.HasPrefix(conn.LocalAddr().Network(), "udp") {
		if _, err := conn.Write([]byte("who am I?")); err != nil {
			return netip.AddrPort{}, err
		}
	}
	answer := make([]byte, 128)
	n, err := conn.Read(answer)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("no answer: %w", err)
	}
	return netip.ParseAddrPort(string(answer[:n]))
}
