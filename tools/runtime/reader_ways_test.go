package runtime

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// here runs a command on this machine, in the copy of the checkout, away from every cluster.
func (r *reader) here(t *testing.T, command string) {
	t.Helper()
	tools, err := filepath.Abs("bin/tools")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", command)
	cmd.Dir = filepath.Join(r.disk, "src")
	cmd.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"), "KUBECONFIG=/nonexistent", "MAKEFLAGS=", "MFLAGS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	t.Logf("%s", bytes.TrimSpace(out))
}

// hasTool tells whether scripts/setup deploy has brought a program. Where it never does, the command is left out.
func (r *reader) hasTool(t *testing.T, name string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join("bin/tools", name))
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("%v; scripts/setup deploy fetches it", err)
	}
	if err != nil {
		t.Logf("left out: %v", err)
	}
	return err == nil
}

func (r *reader) kubectl(t *testing.T, command string) {
	t.Helper()
	if r.hasTool(t, "kubectl") {
		r.here(t, command)
	}
}

func (r *reader) dryRun(t *testing.T, command string) {
	t.Helper()
	r.kubectl(t, command+" --dry-run=client -o yaml")
}

// label labels a node's object instead of the node: kubectl label nodes NAME LABEL...
func (r *reader) label(t *testing.T, command string) {
	t.Helper()
	words := strings.Fields(command)
	if len(words) < 5 {
		t.Fatalf("%s: want a node and a label", command)
	}
	node := `{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "` + words[3] + `"}}`
	writeFile(t, filepath.Join(r.disk, "src/node.json"), []byte(node), 0o644)
	r.kubectl(t, "kubectl label --local -f node.json -o yaml "+strings.Join(words[4:], " "))
}

func (r *reader) kustomize(t *testing.T, command string) {
	t.Helper()
	_, dir, _ := strings.Cut(command, " -k ")
	r.kubectl(t, "kubectl kustomize "+dir+" >/dev/null")
}

func (r *reader) manifest(t *testing.T, command string) {
	t.Helper()
	_, file, _ := strings.Cut(command, " -f ")
	if strings.Contains(file, "://") {
		t.Fatalf("%s: the file has to be one of the checkout's, so that it can be tried", command)
	}
	r.kubectl(t, "kubectl annotate --local -o name -f "+file+" tried=yes")
}

// template is helm install and helm upgrade --install without a cluster.
func (r *reader) template(t *testing.T, command string) {
	t.Helper()
	if r.hasTool(t, "helm") {
		words := strings.Fields(strings.ReplaceAll(command, " --install", ""))
		r.here(t, "helm template "+strings.Join(words[2:], " ")+" >/dev/null")
	}
}

// plan is for what takes long, and is run by others.
func (r *reader) plan(t *testing.T, command string) {
	t.Helper()
	r.here(t, strings.Replace(command, "make ", "make -n ", 1))
}

// inContainer runs the command that kubectl exec is given.
func (r *reader) inContainer(t *testing.T, command string) {
	t.Helper()
	_, inside, found := strings.Cut(command, " -- /")
	if !found {
		t.Fatalf("%s: want -- and the program's path in the image", command)
	}
	r.onNode(t, inside)
}

func (r *reader) leaveOut(*testing.T, string) {}

func (r *reader) unknown(t *testing.T, command string) {
	t.Helper()
	t.Errorf("say in the table of ways how to try %q", command)
}
