class Every:
    is_past_deadline = False

    def is_due(self, step):
        return True

    def mark(self, step, s):
        pass

    def save(self):
        return {}

    def load(self, d):
        pass
