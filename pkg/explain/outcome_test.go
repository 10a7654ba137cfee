package explain

import (
	"net/netip"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/conflicts"
)

// TestOutcome: the first base chain that decides counts, and where two of one priority do, either may.
func TestOutcome(t *testing.T) {
	pass, masq := conflicts.End{Effect: conflicts.Passes}, conflicts.End{Effect: conflicts.Masquerades}
	snat := func(to string) conflicts.End {
		return conflicts.End{Effect: conflicts.Translates, Address: netip.MustParseAddr(to)}
	}
	chain := func(priority int32, ends ...conflicts.End) stage { return stage{priority, ends} }
	for _, test := range []struct {
		name    string
		stages  []stage
		want    conflicts.Effect
		certain bool
	}{
		{"no rules at all", nil, conflicts.Passes, true},
		{"one passes", []stage{chain(100, pass)}, conflicts.Passes, true},
		{"one masquerades", []stage{chain(100, masq)}, conflicts.Masquerades, true},
		{"the first decides", []stage{chain(90, snat("192.0.2.1")), chain(100, masq)}, conflicts.Translates, true},
		{"the next decides", []stage{chain(90, pass), chain(100, masq)}, conflicts.Masquerades, true},
		{"the first may decide", []stage{chain(90, pass, snat("192.0.2.1")), chain(100, masq)}, conflicts.Translates, false},
		{"the first may decide, to the same", []stage{chain(90, pass, masq), chain(100, masq)}, conflicts.Masquerades, true},
		{"either of two", []stage{chain(100, snat("192.0.2.1")), chain(100, masq)}, conflicts.Translates, false},
		{"either of two, to the same", []stage{chain(100, masq), chain(100, masq)}, conflicts.Masquerades, true},
		{"one of two passes", []stage{chain(100, pass), chain(100, masq)}, conflicts.Masquerades, true},
		{"two addresses", []stage{chain(100, snat("192.0.2.1"), snat("192.0.2.2"))}, conflicts.Translates, false},
		{"not understood", []stage{chain(100, conflicts.End{Effect: conflicts.Unknown})}, conflicts.Unknown, false},
		{"not tracked", []stage{chain(-300, conflicts.End{Effect: conflicts.Untracks}), chain(100, masq)}, conflicts.Untracks, true},
	} {
		effect, certain := effectOf(outcome(test.stages))
		if effect != test.want || certain != test.certain {
			t.Errorf("%s: %s, %t; want %s, %t", test.name, effect, certain, test.want, test.certain)
		}
	}
}
