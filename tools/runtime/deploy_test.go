package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// template is what the kubelet tells a runtime of a DaemonSet's pod. Resources, probes and SELinux are left out: the kubelet asks the
// probes itself, and the other two depend on the machine.
type template struct {
	HostNetwork bool `json:"hostNetwork"`
	Containers  []struct {
		Name            string   `json:"name"`
		Image           string   `json:"image"`
		Command         []string `json:"command"`
		Args            []string `json:"args"`
		SecurityContext struct {
			AllowPrivilegeEscalation bool `json:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool `json:"readOnlyRootFilesystem"`
			Capabilities             struct {
				Drop []string `json:"drop"`
				Add  []string `json:"add"`
			} `json:"capabilities"`
		} `json:"securityContext"`
		VolumeMounts []struct {
			Name             string `json:"name"`
			MountPath        string `json:"mountPath"`
			ReadOnly         bool   `json:"readOnly"`
			MountPropagation string `json:"mountPropagation"`
		} `json:"volumeMounts"`
	} `json:"containers"`
	Volumes []struct {
		Name     string `json:"name"`
		HostPath *struct {
			Path string `json:"path"`
			Type string `json:"type"`
		} `json:"hostPath"`
	} `json:"volumes"`
}

func readTemplate(t *testing.T, manifest string) template {
	t.Helper()
	var daemonSet struct {
		Spec struct {
			Template struct {
				Spec template `json:"spec"`
			} `json:"template"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(readFile(t, manifest), &daemonSet); err != nil {
		t.Fatalf("%s: %v", manifest, err)
	}
	return daemonSet.Spec.Template.Spec
}

// productImage is built from the checkout for this machine alone, with the name that the manifests have.
func productImage(dir string) error {
	build := exec.Command("go", "run", "./scripts/image", "-arch", goruntime.GOARCH, "-o", filepath.Join(dir, "image"))
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("scripts/image: %w\n%s", err, out)
	}
	return nil
}

// importProduct brings the project's image to the node.
func (n *node) importProduct(t *testing.T) {
	t.Helper()
	tar := readFile(t, filepath.Join(testkit.Built(), "image", "ip-masq-agent-linux-"+goruntime.GOARCH+".tar"))
	writeFile(t, filepath.Join(n.disk, "product.tar"), tar, 0o644)
	n.run(t, "ctr", "--namespace=k8s.io", "images", "import", "--no-unpack", "/product.tar")
}

// logDirectory has the logs of the containers of manifests, by the container's name.
const logDirectory = "/var/log/pods/ip-masq-agent"

// deploy runs a manifest's pod, as the kubelet does it. args go to the container ip-masq-agent.
func (n *node) deploy(t *testing.T, manifest string, args ...string) (sandbox string) {
	t.Helper()
	spec := readTemplate(t, manifest)
	if !spec.HostNetwork {
		t.Fatalf("%s: the pod is not in the node's network", manifest)
	}
	n.deployed++
	n.run(t, "mkdir", "-p", logDirectory)
	namespaces := &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}
	seccomp := &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: "ip-masq-agent", Uid: "uid-ip-masq-agent", Namespace: "kube-system", Attempt: n.deployed},
		LogDirectory: logDirectory,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    n.cgroup(),
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: namespaces, Seccomp: seccomp},
		},
	}
	sandbox = must(t, n.cri.RunPodSandbox, &cri.RunPodSandboxRequest{Config: config}).PodSandboxId
	for _, c := range spec.Containers {
		security := &cri.LinuxContainerSecurityContext{
			NamespaceOptions: namespaces, Seccomp: seccomp,
			RunAsUser: &cri.Int64Value{}, NoNewPrivs: !c.SecurityContext.AllowPrivilegeEscalation, ReadonlyRootfs: c.SecurityContext.ReadOnlyRootFilesystem,
			Capabilities: &cri.Capability{AddCapabilities: c.SecurityContext.Capabilities.Add, DropCapabilities: c.SecurityContext.Capabilities.Drop},
		}
		container := &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: c.Name},
			Image:    &cri.ImageSpec{Image: c.Image},
			Command:  c.Command,
			Args:     c.Args,
			LogPath:  c.Name + ".log",
			Linux:    &cri.LinuxContainerConfig{SecurityContext: security},
		}
		if c.Name == "ip-masq-agent" {
			container.Args = append(container.Args, args...)
		}
		for _, m := range c.VolumeMounts {
			mount := &cri.Mount{ContainerPath: m.MountPath, HostPath: n.volume(t, spec, m.Name), Readonly: m.ReadOnly}
			if m.MountPropagation == "HostToContainer" {
				mount.Propagation = cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
			}
			container.Mounts = append(container.Mounts, mount)
		}
		id := must(t, n.cri.CreateContainer, &cri.CreateContainerRequest{PodSandboxId: sandbox, Config: container, SandboxConfig: config}).ContainerId
		must(t, n.cri.StartContainer, &cri.StartContainerRequest{ContainerId: id})
	}
	return sandbox
}

// volume is a path of the node, made where the manifest says so. The only one that is none is the ConfigMap's, in whose place is the
// directory that configure writes to.
func (n *node) volume(t *testing.T, spec template, name string) string {
	t.Helper()
	for _, v := range spec.Volumes {
		switch {
		case v.Name != name:
			continue
		case v.HostPath == nil:
			return "/" + filepath.Dir(configFile)
		case v.HostPath.Type == "DirectoryOrCreate":
			n.run(t, "mkdir", "-p", v.HostPath.Path)
		case v.HostPath.Type == "FileOrCreate":
			n.run(t, "touch", v.HostPath.Path)
		}
		return v.HostPath.Path
	}
	t.Fatalf("no volume %s", name)
	return ""
}

// awaitReason waits until /readyz of the agent's container gives a reason with the words.
func (n *node) awaitReason(t *testing.T, words string) {
	t.Helper()
	var last error
	defer func() {
		if t.Failed() {
			t.Logf("/readyz at last: %v", last)
		}
	}()
	netnstest.Eventually(t, 15*time.Second, "/readyz says "+words, func() bool {
		last = n.ready()
		return last != nil && strings.Contains(last.Error(), words)
	})
}

func (n *node) awaitDeployed(t *testing.T) {
	t.Helper()
	var last error
	defer func() {
		if t.Failed() {
			t.Logf("/readyz at last: %v", last)
		}
	}()
	netnstest.Eventually(t, 20*time.Second, "the pod is ready", func() bool {
		last = n.ready()
		return last == nil
	})
}

// exec runs a command in the container ip-masq-agent of a manifest's pod, as kubectl exec has it run.
func (n *node) exec(t *testing.T, sandbox string, command ...string) (out string, status int) {
	t.Helper()
	list := must(t, n.cri.ListContainers, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: sandbox}}).Containers
	for _, c := range list {
		if c.Metadata.Name == "ip-masq-agent" {
			r := must(t, n.cri.ExecSync, &cri.ExecSyncRequest{ContainerId: c.Id, Cmd: command, Timeout: 10})
			return string(r.Stdout) + string(r.Stderr), int(r.ExitCode)
		}
	}
	t.Fatalf("no container ip-masq-agent in %v", list)
	return "", 0
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
