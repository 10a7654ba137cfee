package netnstest

import (
	"os/exec"
	"regexp"
	"strconv"
)

// RequireNFT skips the test where the program nft is older than 1.minor.patch: releases 0.9.x, which Debian bullseye has, lack
// syntax and crash on some. why goes on after "nft before 1.minor.patch". What ip-masq does itself needs no nft.
func RequireNFT(t TB, minor, patch int, why string) {
	t.Helper()
	Require(t, "nft")
	out, err := exec.Command("nft", "--version").Output()
	version := nftVersion(string(out))
	if err != nil || version == nil {
		t.Fatalf("nft --version: %v, %q", err, out)
	}
	if version[0] < 1 || version[0] == 1 && (version[1] < minor || version[1] == minor && version[2] < patch) {
		t.Skipf("nft before 1.%d.%d %s", minor, patch, why)
	}
}

var nftVersionText = regexp.MustCompile(`v(\d+)\.(\d+)\.(\d+)`)

// nftVersion reads "nftables v1.0.6 (Lester Gooch #5)"; nil where it cannot.
func nftVersion(text string) []int {
	found := nftVersionText.FindStringSubmatch(text)
	if found == nil {
		return nil
	}
	numbers := make([]int, 3)
	for i := range numbers {
		numbers[i], _ = strconv.Atoi(found[i+1])
	}
	return numbers
}
