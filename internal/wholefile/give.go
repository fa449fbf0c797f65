package wholefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Give makes a file that root has just made belong to the owner of its
// directory, who is to read it: the service's user, of its state directory. To
// anybody else than root it does nothing, and where root may not give files away,
// as in a container, the file stays root's: it is written all the same.
func Give(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	return unlessForbidden(f.Chown(int(owner.Uid), int(owner.Gid)))
}

// unlessForbidden drops the error of a root that may not do everything: without
// a capability, in a user namespace, or on a file system that keeps no owners.
func unlessForbidden(err error) error {
	for _, no := range []error{unix.EPERM, unix.EACCES, unix.EINVAL, unix.EROFS, unix.ENOTSUP, unix.EOVERFLOW} {
		if errors.Is(err, no) {
			return nil
		}
	}
	return err
}

// GiveTree makes the regular files and directories below a directory that
// belong to root belong to the directory's owner, if that is not root and
// root asks: an agent that was started by hand leaves such files to the service.
func GiveTree(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it went meanwhile
		case err != nil && d != nil && d.IsDir() && unlessForbidden(err) == nil:
			return fs.SkipDir
		case err != nil:
			return unlessForbidden(err)
		case d.IsDir() || d.Type().IsRegular():
			return unlessForbidden(give(path, owner))
		}
		return nil
	})
}

// give changes the owner of a file that is root's and has one name: the directory is
// another user's, who must not lead root to a file elsewhere.
func give(path string, owner *syscall.Stat_t) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if st.Uid != 0 || kind != unix.S_IFREG && kind != unix.S_IFDIR || kind == unix.S_IFREG && st.Nlink != 1 {
		return nil
	}
	if err := unix.Fchown(fd, int(owner.Uid), int(owner.Gid)); err != nil {
		return &fs.PathError{Op: "chown", Path: path, Err: err}
	}
	return nil
}
