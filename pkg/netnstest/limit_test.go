package netnstest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestLimit starts this test binary again, because the factor is read once per process.
func TestLimit(t *testing.T) {
	if os.Getenv("LIMIT_TEST") != "" {
		fmt.Printf("limit %s, crowd %d\n", Limit(time.Second), Crowd(50))
		return
	}
	for _, c := range []struct{ ci, value, want string }{
		{"", "", "limit 1s, crowd 50\n"},
		{"", "1", "limit 1s, crowd 50\n"},
		{"", "2.5", "limit 2.5s, crowd 20\n"},
		{"", "100", "limit 1m40s, crowd 2\n"},
		{"true", "", "limit 3s, crowd 50\n"},
		{"true", "2.5", "limit 2.5s, crowd 20\n"},
		{"", "0.5", "want a number"},
		{"", "ten", "want a number"},
		{"", "NaN", "want a number"},
		{"true", "-1", "want a number"},
	} {
		again := exec.Command("/proc/self/exe", "-test.run=^TestLimit$")
		again.Env = append(os.Environ(), "LIMIT_TEST=1", "CI="+c.ci, envFactor+"="+c.value)
		out, err := again.CombinedOutput()
		if !strings.Contains(string(out), c.want) || (err == nil) != strings.HasPrefix(c.want, "limit") {
			t.Errorf("CI=%q %s=%q: %v, want %q in\n%s", c.ci, envFactor, c.value, err, c.want, out)
		}
	}
}
