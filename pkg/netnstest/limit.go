package netnstest

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// envFactor makes every limit of time in the tests longer, for kernels that run in an emulator: IPMASQ_TIME_FACTOR=10.
const envFactor = "IPMASQ_TIME_FACTOR"

// sharedFactor is how much longer limits are where CI is set: its machines are shared, and stand still for a second now and then.
const sharedFactor = 3

// Limit is a limit of time as it holds on this machine: d, or a multiple of it in an emulator and in CI. Every test that fails
// because something took too long asks here, so that one number is enough for all of them.
func Limit(d time.Duration) time.Duration {
	if !Emulated() && os.Getenv("CI") != "" {
		return d * sharedFactor
	}
	return time.Duration(float64(d) * factor())
}

// Emulated reports whether the tests run in an emulator, where each takes ten times as long.
func Emulated() bool { return factor() > 1 }

// Crowd is how many programs a test runs at once: n, or a part of it in an emulator. The programs wait for each other, and the
// product's own limits (iptables' -w) do not know the factor.
func Crowd(n int) int {
	return max(2, int(float64(n)/factor()))
}

// factor panics on a value that is no number from 1 on: a wrong limit would make tests pass, or fail, for no reason.
var factor = sync.OnceValue(func() float64 {
	text := os.Getenv(envFactor)
	if text == "" {
		return 1
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f >= 1) {
		panic(fmt.Sprintf("%s=%q: want a number from 1 on", envFactor, text))
	}
	return f
})
