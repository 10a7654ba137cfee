package netnstest

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestPatientCountsTimeThatRuns: a process that stood still for a while goes on waiting.
func TestPatientCountsTimeThatRuns(t *testing.T) {
	limit := Limit(300 * time.Millisecond)
	ctx, cancel := patient(limit)
	defer cancel()
	pid := os.Getpid()
	stop := exec.Command("sh", "-c", fmt.Sprintf("kill -STOP %d; sleep %.1f; kill -CONT %[1]d", pid, (2*limit).Seconds()))
	if out, err := stop.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := ctx.Err(); err != nil {
		t.Errorf("%v after %v, most of which the process did not run", err, 2*limit)
	}
	<-ctx.Done()
}
