package translog

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
)

// The fields are those of the Elastic Common Schema (ECS 8.11), with its dotted names, and ip_masq.* for what it has no name for.
const (
	schemaVersion = "8.11.0"
	timeFormat    = "2006-01-02T15:04:05.000000Z07:00"

	actionStart = "connection-started"
	actionEnd   = "connection-ended"
)

// entry is what a line is made of.
type entry struct {
	action     string
	flow       *conntrack.Flow
	owner      *Owner
	start, end int64 // nanoseconds, 0: not known
	unseen     bool  // the end was noticed later, end is when
}

// appendLine writes one line. It is written by hand because encoding/json takes several times as long, for each connection.
func appendLine(b []byte, e entry) []byte {
	f := e.flow
	at := e.end
	if e.action == actionStart {
		at = e.start
	}
	b = append(b, `{"@timestamp":`...)
	b = appendTime(b, at)
	b = append(b, `,"ecs.version":"`+schemaVersion+`","event.action":"`...)
	b = append(append(b, e.action...), '"')
	if e.start != 0 {
		b = appendTime(append(b, `,"event.start":`...), e.start)
	}
	if e.action == actionEnd {
		b = appendTime(append(b, `,"event.end":`...), e.end)
		if e.start != 0 {
			b = strconv.AppendInt(append(b, `,"event.duration":`...), max(0, e.end-e.start), 10)
		}
		if e.unseen {
			b = append(b, `,"ip_masq.end_observed":false`...)
		}
	}
	b = append(b, `,"network.type":"`...)
	if f.Original.Src.Addr().Is4() {
		b = append(b, `ipv4"`...)
	} else {
		b = append(b, `ipv6"`...)
	}
	b = append(b, `,"network.transport":"`...)
	if name := protocols[f.Original.Proto]; name != "" {
		b = append(b, name...)
	} else {
		b = strconv.AppendUint(b, uint64(f.Original.Proto), 10)
	}
	b = append(b, '"')
	b = appendEndpoint(b, "source.", "", f.Original.Src)
	b = appendEndpoint(b, "source.", "nat.", f.Reply.Dst)
	if f.Counted && e.action == actionEnd {
		b = appendCounts(b, "source.", f.SentPackets, f.Sent)
	}
	b = appendEndpoint(b, "destination.", "", f.Original.Dst)
	if f.Reply.Src != f.Original.Dst {
		b = appendEndpoint(b, "destination.", "nat.", f.Reply.Src)
	}
	if f.Counted && e.action == actionEnd {
		b = appendCounts(b, "destination.", f.ReceivedPackets, f.Received)
	}
	if e.owner != nil {
		b = e.owner.append(b)
	}
	return append(b, "}\n"...)
}

func appendTime(b []byte, nanoseconds int64) []byte {
	b = append(b, '"')
	b = time.Unix(0, nanoseconds).UTC().AppendFormat(b, timeFormat)
	return append(b, '"')
}

func appendEndpoint(b []byte, side, nat string, e netip.AddrPort) []byte {
	b = append(append(append(b, `,"`...), side...), nat...)
	b = append(b, `ip":"`...)
	b = e.Addr().AppendTo(b)
	b = append(append(append(b, `","`...), side...), nat...)
	b = append(b, `port":`...)
	return strconv.AppendUint(b, uint64(e.Port()), 10)
}

func appendCounts(b []byte, side string, packets, bytes uint64) []byte {
	b = append(append(append(b, `,"`...), side...), `packets":`...)
	b = strconv.AppendUint(b, packets, 10)
	b = append(append(append(b, `,"`...), side...), `bytes":`...)
	return strconv.AppendUint(b, bytes, 10)
}

func (o *Owner) append(b []byte) []byte {
	for _, field := range [...]struct{ name, value string }{
		{`,"orchestrator.namespace":`, o.Pod.Namespace},
		{`,"orchestrator.resource.name":`, o.Pod.Name},
		{`,"container.id":`, o.ContainerID},
		{`,"ip_masq.network":`, o.Network},
		{`,"ip_masq.interface":`, o.IfName},
	} {
		if field.value != "" {
			b = appendText(append(b, field.name...), field.value)
		}
	}
	return b
}

// appendText quotes a text. Names of Kubernetes and container ids need no escaping; what does goes the slow way.
func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(text)
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}

// line is one line as read.
type line struct {
	Action     string     `json:"event.action"`
	Start      *time.Time `json:"event.start"`
	End        *time.Time `json:"event.end"`
	Transport  string     `json:"network.transport"`
	Src        netip.Addr `json:"source.ip"`
	SrcPort    uint16     `json:"source.port"`
	NAT        netip.Addr `json:"source.nat.ip"`
	NATPort    uint16     `json:"source.nat.port"`
	Sent       *uint64    `json:"source.bytes"`
	Dst        netip.Addr `json:"destination.ip"`
	DstPort    uint16     `json:"destination.port"`
	DstNAT     netip.Addr `json:"destination.nat.ip"`
	DstNATPort uint16     `json:"destination.nat.port"`
	Received   *uint64    `json:"destination.bytes"`
	Namespace  string     `json:"orchestrator.namespace"`
	Name       string     `json:"orchestrator.resource.name"`
	Container  string     `json:"container.id"`
	Network    string     `json:"ip_masq.network"`
	IfName     string     `json:"ip_masq.interface"`
}

func (l line) connection() Connection {
	c := Connection{
		Proto: l.Transport, Src: netip.AddrPortFrom(l.Src, l.SrcPort), Dst: netip.AddrPortFrom(l.Dst, l.DstPort),
		Translated: netip.AddrPortFrom(l.NAT, l.NATPort), Answers: netip.AddrPortFrom(l.Dst, l.DstPort),
	}
	if l.DstNAT.IsValid() {
		c.Answers = netip.AddrPortFrom(l.DstNAT, l.DstNATPort)
	}
	if l.Start != nil {
		c.Start = *l.Start
	}
	if l.End != nil {
		c.End = *l.End
	}
	if l.Sent != nil && l.Received != nil {
		bytes := *l.Sent + *l.Received
		c.Bytes = &bytes
	}
	if l.Container != "" {
		c.Owner = &Owner{Network: l.Network, ContainerID: l.Container, IfName: l.IfName}
		c.Owner.Pod.Namespace, c.Owner.Pod.Name = l.Namespace, l.Name
	}
	return c
}
