package nfnl

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestElementsRoundTrip(t *testing.T) {
	var all []Element
	for i := range 5000 {
		e := Element{Key: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), End: i%2 == 1}
		if i%3 == 0 {
			e.Comment = fmt.Sprintf("comment %d", i)
		}
		all = append(all, e)
	}
	all = append(all, Element{Key: netip.MustParseAddr("fd00::1")})
	b := NewBatch()
	b.AddElements("table", "set", all, Excl)
	var got []Element
	messages := 0
	for m, rest, ok := next(b.datagram); ok; m, rest, ok = next(rest) {
		if list := find(m.attributes(), unix.NFTA_SET_ELEM_LIST_ELEMENTS); len(list) > 1<<16-8 {
			t.Errorf("a list of %d bytes does not fit its length", len(list))
		}
		got = new(decoder).elements(got, m.attributes())
		messages++
	}
	if messages < 4 {
		t.Errorf("%d messages: the list was not divided", messages)
	}
	if len(got) != len(all) {
		t.Fatalf("%d elements, want %d", len(got), len(all))
	}
	for i := range all {
		if got[i] != all[i] {
			t.Fatalf("element %d: %+v, want %+v", i, got[i], all[i])
		}
	}
}

func TestComment(t *testing.T) {
	for _, comment := range []string{"", "a", strings.Repeat("x", MaxComment), strings.Repeat("x", MaxComment+1)} {
		encoded := appendComment(nil, unix.NFTA_RULE_USERDATA, udataComment, comment)
		got := commentIn(find(encoded, unix.NFTA_RULE_USERDATA), udataComment)
		if want := comment[:min(len(comment), MaxComment)]; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, broken := range [][]byte{nil, {0}, {0, 5, 'a'}, {9, 0, 0, 9}} {
		if got := commentIn(broken, udataComment); got != "" {
			t.Errorf("%v: %q", broken, got)
		}
	}
}

// FuzzDecode: what the kernel never sends must not break the decoders either.
func FuzzDecode(f *testing.F) {
	b := NewBatch()
	b.AddElements("table", "set", []Element{{Key: netip.MustParseAddr("10.0.0.1"), Comment: "c"}}, 0)
	b.AddRule(Rule{Table: "t", Chain: "c", Exprs: [][]byte{{8, 0, 1, 0, 'c', 'm', 'p', 0}}}, 7)
	b.AddSet(Set{Table: "t", Name: "s", Key: IPv4Addr, Interval: true, Comment: "c"})
	b.AddChain(Chain{Table: "t", Name: "c", Type: "nat", Hook: 4, Priority: 100, Accept: true})
	f.Add(b.datagram)
	f.Add(b.datagram[:len(b.datagram)-7])
	f.Fuzz(func(_ *testing.T, datagram []byte) {
		for m, rest, ok := next(datagram); ok; m, rest, ok = next(rest) {
			new(decoder).elements(nil, m.attributes())
			r := decodeRule(m.attributes())
			_, _ = Target(r), SameExprs(r.Exprs, r.Exprs)
			_, _ = Counted(r)
			_ = m.errno()
			_, _ = decodeChain(m.attributes()), decodeSet(m.attributes())
			_, _, _ = changedSet(m)
			_ = UsesSet(r, "set")
		}
	})
}

func TestSameExprs(t *testing.T) {
	expr := func(name string, attrs ...[]byte) []byte {
		var data []byte
		for _, attr := range attrs {
			data = append(data, attr...)
		}
		return appendBytes(appendString(nil, unix.NFTA_EXPR_NAME, name), unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, data)
	}
	one, two, zero := appendUint32(nil, 1, 5), appendUint32(nil, 2, 6), appendUint32(nil, 2, 0)
	nested := appendBytes(nil, 3|unix.NLA_F_NESTED, one)
	for _, test := range []struct {
		name              string
		written, reported []byte
		want              bool
	}{
		{"equal", expr("a", one, two), expr("a", two, one), true},
		{"another name", expr("a", one), expr("b", one), false},
		{"another value", expr("a", one), expr("a", appendUint32(nil, 1, 6)), false},
		{"a default is reported", expr("a", one), expr("a", one, zero), true},
		{"more than a default is reported", expr("a", one), expr("a", one, two), false},
		{"a zero is not reported", expr("a", one, zero), expr("a", one), true},
		{"a value is not reported", expr("a", one, two), expr("a", one), false},
		{"nested", expr("a", nested), expr("a", appendBytes(nil, 3, one)), true},
		{"another value nested", expr("a", nested), expr("a", appendBytes(nil, 3, appendUint32(nil, 1, 6))), false},
		{"counts", expr("counter", one), expr("counter", appendUint32(nil, 1, 6)), true},
	} {
		if got := SameExprs([][]byte{test.written}, [][]byte{test.reported}); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}
