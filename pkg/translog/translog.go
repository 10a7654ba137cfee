// Package translog answers which pod stood behind a source address and port of the node: it keeps a log with one line for each
// translated connection, and finds lines in it and connections in the kernel's table.
//
// Which pod a connection belongs to is decided by the records of attachments as they were when it began, because an address goes
// from one pod to the next. Where that cannot be told, the line names no pod.
//
// It refuses to disturb masquerading: it only listens, its memory is bounded by the connections that are open, and when a disk is
// slow or full it loses lines and counts them.
package translog

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
)

// Owner is whom an address belongs to. Of a pod whose runtime did not tell its name, only the container is known.
type Owner struct {
	Pod         attachment.Pod
	Network     string
	ContainerID string
	IfName      string
}

func ownerOf(a attachment.Attachment) Owner {
	return Owner{Pod: a.Pod, Network: a.Network, ContainerID: a.ContainerID, IfName: a.IfName}
}

// Connection is one translated connection.
type Connection struct {
	Owner      *Owner // nil: not known
	Proto      string
	Src        netip.AddrPort
	Dst        netip.AddrPort // as the pod called it
	Answers    netip.AddrPort // who answers, which is another one behind a service
	Translated netip.AddrPort
	Start, End time.Time // zero: not known, or not over
	Bytes      *uint64   // of both directions, nil where the kernel does not count
}

// protocols by number, as ECS and OpenTelemetry name them. The others have their number for a name.
var protocols = map[uint8]string{
	unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_DCCP: "dccp",
	unix.IPPROTO_UDPLITE: "udplite", unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_ICMPV6: "ipv6-icmp",
}

func connectionOf(f *conntrack.Flow) Connection {
	c := Connection{
		Proto: protocols[f.Original.Proto], Src: f.Original.Src, Dst: f.Original.Dst, Answers: f.Reply.Src, Translated: f.Reply.Dst,
		Start: timeOf(f.Start), End: timeOf(f.Stop),
	}
	if f.Counted {
		bytes := f.Sent + f.Received
		c.Bytes = &bytes
	}
	return c
}

func timeOf(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds).UTC()
}
