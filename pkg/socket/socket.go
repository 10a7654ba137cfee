// Package socket is the unix socket in the state directory, over which commands ask the daemon: HTTP, with JSON documents.
//
// It refuses to know what is asked, and to decide whether a daemon runs: that is what the lock beside it says.
package socket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Name is the socket's in the state directory.
const Name = "agent.sock"

// Path is where the socket is.
func Path(dir string) string { return filepath.Join(dir, Name) }

// in opens a directory, and names a file of it in a way that fits into the 107 bytes that a socket's address has.
func in(dir, name string) (short string, done func(), err error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), func() { _ = unix.Close(fd) }, nil
}

// Server is the daemon's side.
type Server struct {
	dir     string
	handler http.Handler
	made    os.FileInfo // the socket that this server listens on
	server  *http.Server
}

// NewServer returns a server that does not listen yet.
func NewServer(dir string, handler http.Handler) *Server {
	return &Server{dir: dir, handler: handler}
}

// Listen makes the socket, or makes it again where it is not there any more, and does nothing where it is. Only who holds the
// daemon's lock may call it: a socket that is in the way is what a killed daemon left. It is made under another name with mode 0600
// and then renamed, so that nobody finds it half made.
func (s *Server) Listen() error {
	path := Path(s.dir)
	if now, err := os.Lstat(path); err == nil && s.made != nil && os.SameFile(now, s.made) {
		return nil
	}
	temp := fmt.Sprintf(".ip-masq.tmp-%d.sock", os.Getpid())
	short, done, err := in(s.dir, temp)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	defer done()
	whole := filepath.Join(s.dir, temp)
	_ = os.Remove(whole)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	listener.SetUnlinkOnClose(false)
	err = os.Chmod(whole, 0o600)
	if err == nil {
		err = os.Rename(whole, path)
	}
	var made os.FileInfo
	if err == nil {
		made, err = os.Lstat(path)
	}
	if err != nil {
		_ = listener.Close()
		_ = os.Remove(whole)
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if s.server != nil {
		_ = s.server.Close()
	}
	s.made, s.server = made, &http.Server{Handler: s.handler, ReadHeaderTimeout: 5 * time.Second}
	go func(server *http.Server) { _ = server.Serve(listener) }(s.server)
	return nil
}

// Close stops listening and takes the socket away.
func (s *Server) Close() {
	if s.server == nil {
		return
	}
	if now, err := os.Lstat(Path(s.dir)); err == nil && os.SameFile(now, s.made) {
		_ = os.Remove(Path(s.dir))
	}
	_ = s.server.Close()
}

// ErrNobody means that no process listens: there is no socket, or it is what a killed daemon left.
var ErrNobody = errors.New("no daemon listens")

// Client is the side of commands. It is for one goroutine.
type Client struct {
	dir  string
	http *http.Client
	pid  int
}

// NewClient returns a client. It connects when it is used.
func NewClient(dir string) *Client {
	c := &Client{dir: dir}
	c.http = &http.Client{Transport: &http.Transport{DialContext: c.dial}}
	return c
}

// PID is the daemon's process as seen from here, 0 where it is not known, such as for a daemon in another container.
func (c *Client) PID() int { return c.pid }

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	short, done, err := in(c.dir, Name)
	if err != nil {
		return nil, nobody(err)
	}
	defer done()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", short)
	if err != nil {
		return nil, nobody(err)
	}
	c.pid = peer(conn)
	return conn, nil
}

// nobody tells that nobody listens from other errors.
func nobody(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%w: %w", ErrNobody, err)
	}
	return err
}

// peer asks the kernel who listens.
func peer(conn net.Conn) (pid int) {
	u, isUnix := conn.(*net.UnixConn)
	if !isUnix {
		return 0
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if credentials, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(credentials.Pid)
		}
	})
	return pid
}

// Do sends a request and decodes the answer's document into the value. A document of an error is {"error": "…"}.
func (c *Client) Do(ctx context.Context, method, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return &Refused{response.StatusCode, reason(body)}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("the daemon's answer to %s: %w", path, err)
	}
	return nil
}

// Refused is an answer of the daemon that is no document.
type Refused struct {
	Status int
	Reason string
}

func (r *Refused) Error() string { return "the daemon answers: " + r.Reason }

// failure is the document of an error.
type failure struct {
	Error string `json:"error"`
}

func reason(body []byte) string {
	var f failure
	if json.Unmarshal(body, &f) == nil && f.Error != "" {
		return f.Error
	}
	return strings.TrimSpace(string(body[:min(len(body), 200)]))
}

// Answer writes a document.
func Answer(w http.ResponseWriter, document any) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(document)
}

// Refuse writes why there is no document.
func Refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(failure{err.Error()})
}
