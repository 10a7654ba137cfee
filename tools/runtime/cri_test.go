package runtime

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// client asks a runtime for what the kubelet asks it for.
type client struct {
	cri.RuntimeServiceClient
	cgroup string
}

// pod is one that runs.
type pod struct{ name, sandbox, address string }

func dial(t *testing.T, socket, cgroup string) *client {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &client{cri.NewRuntimeServiceClient(conn), cgroup}
}

// call bounds one request.
func call[Q, R any](method func(context.Context, Q, ...grpc.CallOption) (R, error), request Q) (R, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return method(ctx, request)
}

func must[Q, R any](t *testing.T, method func(context.Context, Q, ...grpc.CallOption) (R, error), request Q) R {
	t.Helper()
	response, err := call(method, request)
	if err != nil {
		t.Fatalf("%T: %v", request, err)
	}
	return response
}

// run starts a pod with one container.
func (c *client) run(t *testing.T, name string, attempt uint32) pod {
	t.Helper()
	return c.runWith(t, name, attempt, nil)
}

func (c *client) runWith(t *testing.T, name string, attempt uint32, annotations map[string]string) pod {
	t.Helper()
	config := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Uid: "uid-" + name, Namespace: "default", Attempt: attempt},
		Hostname: name, Annotations: annotations,
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: c.cgroup},
	}
	sandbox := must(t, c.RunPodSandbox, &cri.RunPodSandboxRequest{Config: config}).PodSandboxId
	container := must(t, c.CreateContainer, &cri.CreateContainerRequest{
		PodSandboxId: sandbox, SandboxConfig: config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "app"},
			Image:    &cri.ImageSpec{Image: imageName},
			Envs:     []*cri.KeyValue{{Key: "ROLE", Value: []byte("app")}},
			Linux:    &cri.LinuxContainerConfig{},
		},
	}).ContainerId
	must(t, c.StartContainer, &cri.StartContainerRequest{ContainerId: container})
	status := must(t, c.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: sandbox}).Status
	return pod{name, sandbox, status.Network.Ip}
}

// remove ends a pod as the kubelet does: two requests, each with a DEL.
func (c *client) remove(t *testing.T, sandbox string) {
	t.Helper()
	must(t, c.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: sandbox})
	must(t, c.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: sandbox})
}

// sandboxes lists what the runtime knows of, by its state.
func (c *client) sandboxes(t *testing.T) map[cri.PodSandboxState][]*cri.PodSandbox {
	t.Helper()
	out := map[cri.PodSandboxState][]*cri.PodSandbox{}
	for _, s := range must(t, c.ListPodSandbox, &cri.ListPodSandboxRequest{}).Items {
		out[s.State] = append(out[s.State], s)
	}
	return out
}

// networkReady is what the kubelet makes a node ready or not by.
func (c *client) networkReady() error {
	response, err := call(c.Status, &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, condition := range response.Status.Conditions {
		if condition.Type == cri.NetworkReady && !condition.Status {
			return fmt.Errorf("%s: %s", condition.Reason, condition.Message)
		}
	}
	return nil
}
