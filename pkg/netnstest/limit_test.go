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
	for value, want := range map[string]string{
		"": "limit 1s, crowd 50\n", "1": "limit 1s, crowd 50\n", "2.5": "limit 2.5s, crowd 20\n", "100": "limit 1m40s, crowd 2\n",
		"0.5": "want a number", "ten": "want a number", "NaN": "want a number", "-1": "want a number",
	} {
		again := exec.Command("/proc/self/exe", "-test.run=^TestLimit$")
		again.Env = append(os.Environ(), "LIMIT_TEST=1", envFactor+"="+value)
		out, err := again.CombinedOutput()
		if !strings.Contains(string(out), want) || (err == nil) != strings.HasPrefix(want, "limit") {
			t.Errorf("%s=%q: %v, want %q in\n%s", envFactor, value, err, want, out)
		}
	}
}
