package runtime

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

//go:embed init.sh
var initScript string

// machine is a node that runs. Its disk outlives it; another machine can be booted from it.
type machine struct {
	*netnstest.Node
	disk string
	init *exec.Cmd
}

// newDisk is that of a node on which nothing was ever installed.
func newDisk(t *testing.T) string {
	t.Helper()
	disk := t.TempDir()
	netnstest.OnExit(t, func() { _ = os.RemoveAll(disk) })
	for _, file := range []string{"etc/resolv.conf", "etc/hosts"} {
		writeFile(t, filepath.Join(disk, file), nil, 0o644)
	}
	writeFile(t, filepath.Join(disk, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644)
	writeFile(t, filepath.Join(disk, "etc/group"), []byte("root:x:0:\n"), 0o644)
	if err := os.Mkdir(filepath.Join(disk, "var"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/run", filepath.Join(disk, "var/run")); err != nil {
		t.Fatal(err)
	}
	return disk
}

// boot starts a machine with a network, hosts outside and a disk.
func boot(t *testing.T, disk string) *machine {
	t.Helper()
	bin, err := filepath.Abs("bin")
	if err != nil {
		t.Fatal(err)
	}
	sweepCgroups.Do(removeStaleCgroups)
	m := &machine{Node: netnstest.NewNode(t), disk: disk}
	m.init = exec.Command("/bin/sh", "-c", initScript, "init", disk, bin)
	m.init.Stderr = os.Stderr
	m.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS}
	stdout, err := m.init.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	netnstest.OnExit(t, m.crash)
	if err := m.Do(m.init.Start); err != nil {
		t.Fatalf("init: %v", err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "up\n" {
		t.Fatalf("init does not come up: %q, %v", line, err)
	}
	return m
}

// crash ends every process at once, and with them /run, the mounts, the namespaces and the rules. The disk stays.
func (m *machine) crash() {
	if m.init.Process != nil && m.init.ProcessState == nil {
		_ = m.init.Process.Kill()
		_ = m.init.Wait()
	}
	m.Remove()
	m.Internet.Remove()
	m.Corp.Remove()
	removeCgroups(m.Name)
}

// path is that of one of the node's files, as seen by the test.
func (m *machine) path(file string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", m.init.Process.Pid), file)
}

// run runs a command on the node that has to succeed, and returns what it wrote.
func (m *machine) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.try(args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// try runs a command however it ends.
func (m *machine) try(args ...string) (string, error) {
	var out strings.Builder
	cmd := m.command(&out, args...)
	if err := m.startInside(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// command is one with the node's environment. env looks the program up, inside.
func (m *machine) command(out io.Writer, args ...string) *exec.Cmd {
	cmd := exec.Command("/usr/bin/env", append([]string{"-i", "PATH=" + nodePATH, "HOME=/root"}, args...)...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, "/"
	return cmd
}

// nodePATH: what is found last is lent to the node, in place of what its distribution would bring.
const nodePATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/programs/tools"
