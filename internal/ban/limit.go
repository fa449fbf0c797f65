package ban

import "errors"

// ErrLimit says that foreign input is beyond a limit of this node. Who gets it
// refuses the input, and goes on.
var ErrLimit = errors.New("beyond a limit of this node")
