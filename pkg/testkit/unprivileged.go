package testkit

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// lockAll locks every file and directory below its arguments that it can open, prints their names, and holds them.
const lockAll = `mapfile -t paths < <(find "$@" \( -type f -o -type d \) -readable 2>/dev/null)
for path in "${paths[@]}"; do exec {fd}<"$path" && flock -x -n "$fd" && echo "$path"; done
echo; exec sleep 1000`

// LockAsNobody has an unprivileged user lock all that he can open in some directories and below, until the test ends. It
// returns what that is. The directories above are opened to him as those of a real node are.
func LockAsNobody(t *testing.T, dirs ...string) []string {
	t.Helper()
	netnstest.Require(t, "setpriv", "flock", "bash", "find")
	for _, dir := range dirs {
		for above := filepath.Dir(dir); above != os.TempDir() && above != "/"; above = filepath.Dir(above) {
			if err := os.Chmod(above, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	args := append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", lockAll, "bash"}, dirs...)
	cmd := exec.Command("setpriv", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	var locked []string
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "" {
		locked = append(locked, lines.Text())
	}
	return locked
}
