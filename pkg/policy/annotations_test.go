package policy

import (
	"fmt"
	"testing"
)

// TestParseSourceAddresses: what is read, and one sentence for what is not.
func TestParseSourceAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.0/28":                      "[192.0.2.0/28]",
		"192.0.2.7, 2001:db8::7":            "[192.0.2.7/32 2001:db8::7/128]",
		"0.0.0.0/0,::/0":                    "[0.0.0.0/0 ::/0]",
		"":                                  `"" has an empty item: write prefixes or addresses of nodes with commas in between, such as "192.0.2.0/28,2001:db8::7"`,
		"192.0.2.7,":                        `"192.0.2.7," has an empty item: write prefixes or addresses of nodes with commas in between, such as "192.0.2.0/28,2001:db8::7"`,
		"192.0.2.7/28":                      `"192.0.2.7/28" is not aligned: write "192.0.2.0/28"`,
		"192.0.2.0/33":                      `"192.0.2.0/33" is no prefix and no address: write one such as "192.0.2.0/28"`,
		"192.0.2.7 192.0.2.8":               `"192.0.2.7 192.0.2.8" is no prefix and no address: write one such as "192.0.2.0/28"`,
		"eth0":                              `"eth0" is no prefix and no address: write one such as "192.0.2.0/28"`,
		"fe80::1%eth0":                      `"fe80::1%eth0" is no prefix and no address: write one such as "192.0.2.0/28"`,
		"::ffff:192.0.2.7":                  `"::ffff:192.0.2.7" is an IPv4-mapped IPv6 address: write the IPv4 one`,
		"192.0.2.0/24,::ffff:192.0.2.7/128": `"::ffff:192.0.2.7/128" is an IPv4-mapped IPv6 address: write the IPv4 one`,
	} {
		prefixes, err := ParseSourceAddresses(text)
		got := fmt.Sprint(prefixes)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
