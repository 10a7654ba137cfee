package netnstest

import (
	"slices"
	"testing"
)

func TestNFTVersion(t *testing.T) {
	for text, want := range map[string][]int{
		"nftables v0.9.8 (E.D.S.)\n":               {0, 9, 8},
		"nftables v1.1.3 (Commodore Bullmoose #4)": {1, 1, 3},
		"nftables": nil,
	} {
		if got := nftVersion(text); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
