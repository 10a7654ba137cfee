package netnstest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Port is where the "who am I" servers listen, UDP and TCP.
const Port = 7777

// patience is how long a client waits for an answer.
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
		_ = conn.SetDeadline(time.Now().Add(Limit(patience)))
		_, _ = conn.Write([]byte(conn.RemoteAddr().String()))
		_ = conn.Close()
	}
}

// Seen sends one datagram ("udp") or opens one connection ("tcp") to the "who
// am I" server at addr and returns the address and port that the server saw.
// No answer within two seconds is an error.
func (s *Space) Seen(network string, addr netip.Addr) (netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Limit(patience))
	defer cancel()
	conn, err := s.DialContext(ctx, network, netip.AddrPortFrom(addr, Port).String())
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	return ask(conn)
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
