package translog

import (
	"maps"
	"net/netip"

	"github.com/ip-masq/ip-masq-cni/pkg/conntrack"
)

// opened is a connection that has begun, as a value without pointers: with hundreds of thousands of them the garbage collector has
// nothing to look at.
type opened struct {
	dst, answers, translated      [16]byte
	dstPort, answersPort, natPort uint16
	start                         int64  // 0: not known
	owner                         uint32 // 0: not known
	listing                       uint32 // at which it was there
}

// openKey tells connections apart: the kernel uses an id again, but hardly with the same client.
type openKey struct {
	id    uint32
	src   [16]byte
	port  uint16
	proto uint8
}

// renewAfter is how many connections come, for each that is open, until the map of them is made anew. Nothing of a map's memory comes back
// when entries go, so it would keep the size of the busiest moment; and a map whose number of entries stays the same still grows while they
// come and go, because a part of it splits whenever it happens to be full.
const renewAfter = 64

// remember takes down that a connection is open.
func (l *Logger) remember(key openKey, o opened) {
	l.open[key] = o
	l.added++
	if l.added > renewAfter*max(len(l.open), 1024) {
		former := l.open
		l.added, l.open = 0, make(map[openKey]opened, len(former))
		maps.Copy(l.open, former)
	}
}

func keyOf(f *conntrack.Flow) openKey {
	return openKey{f.ID, f.Original.Src.Addr().As16(), f.Original.Src.Port(), f.Original.Proto}
}

func openedOf(f *conntrack.Flow) opened {
	return opened{
		dst: f.Original.Dst.Addr().As16(), dstPort: f.Original.Dst.Port(),
		answers: f.Reply.Src.Addr().As16(), answersPort: f.Reply.Src.Port(),
		translated: f.Reply.Dst.Addr().As16(), natPort: f.Reply.Dst.Port(),
		start: f.Start,
	}
}

// flow is the connection again, for a line about one whose end was not seen.
func (o opened) flow(key openKey) conntrack.Flow {
	at := func(addr [16]byte, port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(addr).Unmap(), port)
	}
	return conntrack.Flow{
		ID:       key.id,
		Original: conntrack.Tuple{Proto: key.proto, Src: at(key.src, key.port), Dst: at(o.dst, o.dstPort)},
		Reply:    conntrack.Tuple{Proto: key.proto, Src: at(o.answers, o.answersPort), Dst: at(o.translated, o.natPort)},
	}
}
