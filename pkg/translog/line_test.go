package translog

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
)

// began is when the connections of these tests began.
var began = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

func flow(dst, answers string) *conntrack.Flow {
	return &conntrack.Flow{
		Original: conntrack.Tuple{Proto: 6, Src: netip.MustParseAddrPort("10.244.0.5:34567"), Dst: netip.MustParseAddrPort(dst)},
		Reply:    conntrack.Tuple{Proto: 6, Src: netip.MustParseAddrPort(answers), Dst: netip.MustParseAddrPort("192.0.2.1:40001")},
	}
}

var cart = &Owner{Pod: attachment.Pod{Namespace: "shop", Name: "cart-0"}, Network: `pod "net"`, ContainerID: "c1", IfName: "eth0"}

// TestLine holds lines against their text, and reads them back.
func TestLine(t *testing.T) {
	t.Parallel()
	start, end := began.UnixNano(), began.Add(1500*time.Millisecond).UnixNano()
	counted := flow("198.51.100.7:443", "198.51.100.7:443")
	counted.Counted, counted.Sent, counted.SentPackets, counted.Received, counted.ReceivedPackets = true, 1000, 10, 2000, 20
	for name, c := range map[string]struct {
		entry entry
		want  string
	}{
		"ended, counted": {
			entry{action: actionEnd, flow: counted, owner: cart, start: start, end: end},
			`{"@timestamp":"2026-03-01T12:00:01.623456Z","ecs.version":"8.11.0","event.action":"connection-ended","event.start":"2026-03-01T12:00:00.123456Z",` +
				`"event.end":"2026-03-01T12:00:01.623456Z","event.duration":1500000000,"network.type":"ipv4","network.transport":"tcp",` +
				`"source.ip":"10.244.0.5","source.port":34567,"source.nat.ip":"192.0.2.1","source.nat.port":40001,"source.packets":10,"source.bytes":1000,` +
				`"destination.ip":"198.51.100.7","destination.port":443,"destination.packets":20,"destination.bytes":2000,` +
				`"orchestrator.namespace":"shop","orchestrator.resource.name":"cart-0","container.id":"c1","ip_masq.network":"pod \"net\"","ip_masq.interface":"eth0"}` + "\n",
		},
		"ended behind a service, unseen, nobody known": {
			entry{action: actionEnd, flow: flow("10.96.0.9:80", "198.51.100.7:8080"), end: end, unseen: true},
			`{"@timestamp":"2026-03-01T12:00:01.623456Z","ecs.version":"8.11.0","event.action":"connection-ended","event.end":"2026-03-01T12:00:01.623456Z",` +
				`"ip_masq.end_observed":false,"network.type":"ipv4","network.transport":"tcp",` +
				`"source.ip":"10.244.0.5","source.port":34567,"source.nat.ip":"192.0.2.1","source.nat.port":40001,` +
				`"destination.ip":"10.96.0.9","destination.port":80,"destination.nat.ip":"198.51.100.7","destination.nat.port":8080}` + "\n",
		},
		"started": {
			entry{action: actionStart, flow: counted, owner: &Owner{ContainerID: "c2"}, start: start},
			`{"@timestamp":"2026-03-01T12:00:00.123456Z","ecs.version":"8.11.0","event.action":"connection-started","event.start":"2026-03-01T12:00:00.123456Z",` +
				`"network.type":"ipv4","network.transport":"tcp",` +
				`"source.ip":"10.244.0.5","source.port":34567,"source.nat.ip":"192.0.2.1","source.nat.port":40001,` +
				`"destination.ip":"198.51.100.7","destination.port":443,"container.id":"c2"}` + "\n",
		},
	} {
		got := string(appendLine(nil, c.entry))
		if got != c.want {
			t.Errorf("%s:\ngot  %swant %s", name, got, c.want)
		}
		var l line
		if err := json.Unmarshal([]byte(got), &l); err != nil {
			t.Fatal(err)
		}
		read := l.connection()
		f := c.entry.flow
		if read.Src != f.Original.Src || read.Dst != f.Original.Dst || read.Answers != f.Reply.Src || read.Translated != f.Reply.Dst || read.Proto != "tcp" {
			t.Errorf("%s: read back as %+v", name, read)
		}
		if (read.Owner == nil) != (c.entry.owner == nil) || read.Owner != nil && *read.Owner != *c.entry.owner {
			t.Errorf("%s: owner read back as %+v", name, read.Owner)
		}
		if read.Start.IsZero() != (c.entry.start == 0) || read.End.IsZero() != (c.entry.end == 0) {
			t.Errorf("%s: times read back as %v, %v", name, read.Start, read.End)
		}
	}
}

// BenchmarkLine is what one line costs to make.
func BenchmarkLine(b *testing.B) {
	buffer := make([]byte, 0, 1024)
	e := entry{action: actionEnd, flow: flow("198.51.100.7:443", "198.51.100.7:443"), owner: cart, start: 1, end: 2}
	for b.Loop() {
		buffer = appendLine(buffer[:0], e)
	}
}
