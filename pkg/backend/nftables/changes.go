package nftables

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// changes is the way in which the destinations are changed while a rule looks them up.
type changes string

// The two ways.
const (
	// InPlace adds and deletes ranges in the set in use: the cost is that of the difference.
	InPlace changes = "in place"
	// SecondSet fills another set and then moves the rule to it: the cost is that of the whole list, and every kernel gets the
	// verdicts right.
	SecondSet changes = "second set"
	// asItIs aims at the set in use, whatever it would take to change that, to compare them.
	asItIs changes = "as it is"
)

// changesOf decides by the kernel's release. A set of intervals (nft_set_rbtree) may be changed in place where packets look it
// up in an array that holds committed elements alone. Without the array they walk the tree, and ranges that are being
// added or deleted can hide the one that matches: measured on 5.10, 6.1 and 6.12, a few wrong verdicts in 10,000 flows. The
// array is commit 7e43e0a1141d of Linux 7.0; of the stable series 6.19.4 has it, and 6.18.44 is the first of its series that was
// looked at. A distribution may have it in an older release: that one gets the way that is right everywhere.
func changesOf(release string) changes {
	v := versionOf(release)
	switch {
	case v[0] >= 7, v[0] == 6 && v[1] == 19 && v[2] >= 4, v[0] == 6 && v[1] == 18 && v[2] >= 44:
		return InPlace
	}
	return SecondSet
}

// versionOf reads the numbers at the beginning of a release; what is not there is 0.
func versionOf(release string) (v [3]int) {
	for i, part := range strings.SplitN(release, ".", 3) {
		digits := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if digits < 0 {
			digits = len(part)
		}
		v[i], _ = strconv.Atoi(part[:digits])
		if digits < len(part) {
			break
		}
	}
	return v
}

// countLimitOf is the limit of aim by the kernel's release. Before Linux 5.7 elements cannot count, and the kernel leaves the counters out
// without a word. A distribution may have them in an older release, which does without.
func countLimitOf(release string) int {
	if v := versionOf(release); v[0] > 5 || v[0] == 5 && v[1] >= 7 {
		return countLimit
	}
	return -1
}

func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}
